"""The service: Forgemap behind HTTP. `forgemap serve` starts it; see docs/serving.md.

`app` is the HTTP side and never decodes a picture; `worker` is a process of its own that does.
"""
