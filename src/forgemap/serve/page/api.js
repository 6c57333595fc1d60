// api.js: the calls to the server, every error as a Trouble with a sentence for people.

const KEY = "forgemap-token";

export class Trouble extends Error {
  constructor(message, { status = 0, kind = "", retryAfter = 0 } = {}) {
    super(message);
    Object.assign(this, { name: "Trouble", status, kind, retryAfter });
  }
}

let askForToken = async () => null;

/** `ask`: an async function that returns a token from the person, or null. */
export function onLogin(ask) {
  askForToken = ask;
}

/** fetch with the token; asks for one when the server wants it. Raises Trouble or TypeError. */
export async function call(path, options = {}) {
  const token = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  const answer = await fetch(path, { ...options, headers });
  if (answer.ok) return answer;
  const trouble = await troubleOf(answer);
  if (answer.status === 401) {
    const given = await askForToken(token !== null);
    if (given) {
      sessionStorage.setItem(KEY, given);
      return call(path, options);
    }
  }
  throw trouble;
}

async function troubleOf(answer) {
  const problem = await answer.json().catch(() => ({}));
  const fault = problem.errors?.[0];
  const text =
    (fault ? `${problem.detail ?? problem.title} (${fault.where}: ${fault.detail})` : problem.detail) ??
    problem.title ??
    `The server answered ${answer.status} ${answer.statusText}.`;
  return new Trouble(text, {
    status: answer.status,
    kind: String(problem.type ?? "").split(":").pop(),
    retryAfter: Number(answer.headers.get("Retry-After")) || 0,
  });
}

export const models = async () => (await call("v1/models")).json();

/** A Blob of a link in a result, or of a data URI. */
export async function blobOf(link) {
  if (link.startsWith("data:")) {
    const [head, body] = link.split(",");
    const raw = Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0));
    return new Blob([raw], { type: head.slice(5).split(";")[0] });
  }
  return (await call(link)).blob();
}

function form(files, options) {
  const body = new FormData();
  for (const [name, value] of Object.entries(options)) {
    if (value !== null && value !== undefined && value !== "") body.append(name, value);
  }
  for (const file of files) body.append("file", file, file.name);
  return body;
}

/** Calls again after the server's own Retry-After while it is busy, a few times. */
async function patiently(action, signal) {
  for (let attempt = 0; ; attempt++) {
    try {
      return await action();
    } catch (error) {
      const busy = error.name === "Trouble" && [429, 503].includes(error.status);
      if (!busy || attempt === 5 || signal?.aborted) throw error;
      await new Promise((done) => setTimeout(done, 1000 * Math.min(30, error.retryAfter || 2)));
    }
  }
}

/** Judges one picture; the Result. */
export async function analyze(file, options, signal) {
  return patiently(async () => {
    const body = form([file], options);
    return (await call("v1/analyze", { method: "POST", body, signal })).json();
  }, signal);
}

/** Judges many; `progress` gets the Job each time that something changed. Returns the last Job. */
export async function analyzeMany(files, options, progress, signal) {
  let job = await patiently(async () => {
    const body = form(files, options);
    return (await call("v1/jobs", { method: "POST", body, signal })).json();
  }, signal);
  progress(job);
  const over = () => job.status === "done" || job.status === "cancelled";
  const refresh = async () => progress((job = await (await call(job.href, { signal })).json()));
  while (!over()) {
    try {
      for await (const { name, data } of events(job.events, signal)) {
        if (name === "end") progress((job = data));
        else if (name === "picture") {
          job.pictures[data.index] = data;
          progress(job);
        }
      }
    } catch (error) {
      if (error.name === "Trouble" || signal?.aborted) throw error;
    }
    if (over()) break;
    await new Promise((done) => setTimeout(done, 1000)); // the stream was cut: ask, then listen again
    await refresh();
  }
  return job;
}

/** Server-sent events read with fetch, which unlike EventSource can send the token. */
async function* events(path, signal) {
  const answer = await call(path, { signal, headers: { Accept: "text/event-stream" } });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    waiting += value.replaceAll("\r\n", "\n");
    const parts = waiting.split("\n\n");
    waiting = parts.pop();
    for (const part of parts) {
      const name = /^event: (.*)$/m.exec(part)?.[1];
      const data = /^data: (.*)$/m.exec(part)?.[1];
      if (name && data) yield { name, data: JSON.parse(data) };
    }
  }
}

/** The HTML report of results, as a Blob. */
export async function report(results, title) {
  const body = JSON.stringify({ results, title });
  const headers = { "Content-Type": "application/json" };
  return (await call("v1/report", { method: "POST", body, headers })).blob();
}
