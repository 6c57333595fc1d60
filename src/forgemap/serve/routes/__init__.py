"""The routes, one file for each tag of the OpenAPI document; each has `add(app, ...)`."""
