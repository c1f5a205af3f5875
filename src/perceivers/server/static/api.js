// Requests to the server of this page.

const KEY = "perceivers-token";

/** An error response of the server, with its reason. */
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function send(path, options) {
  const token = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  let reply;
  try {
    reply = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server does not answer. Is it still running?", 0);
  }
  const kind = reply.headers.get("content-type") ?? "";
  if (reply.ok && kind.startsWith("text/event-stream")) return reply.body;
  if (reply.ok && !kind.startsWith("application/json")) return { file: await reply.blob(), headers: reply.headers };
  const body = await reply.json().catch(() => ({}));
  if (reply.ok) return body;
  throw new Refused(body.error ?? `The server answered ${reply.status} and gave no reason.`, reply.status);
}

function askForToken() {
  const dialog = document.getElementById("token");
  const field = document.getElementById("token-value");
  field.value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(KEY, field.value.trim());
      resolve();
    }, { once: true });
  });
}

/** Send a request and return its JSON, its file with the headers, or the stream of its events; ask for the token as long as the server requires another one. */
export async function request(path, options = {}) {
  for (;;) {
    try {
      return await send(path, options);
    } catch (error) {
      if (error.status !== 401) throw error;
      await askForToken();
    }
  }
}

/** Send files, texts and further fields as a form. */
export function post(path, given, fields = {}, signal = undefined) {
  const form = new FormData();
  for (const [name, value] of Object.entries({ ...given, ...fields })) {
    if (value instanceof File) form.append(name, value, value.name);
    else form.append(name, value);
  }
  return request(path, { method: "POST", body: form, signal });
}

/** Send an object as JSON and yield the events of the response, each with its name and data. */
export async function* events(path, content, signal) {
  const headers = { "content-type": "application/json" };
  const body = await request(path, { method: "POST", headers, body: JSON.stringify(content), signal });
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (text + value).split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const [data, name = "message"] = part.split("\n").reverse().map((line) => line.replace(/^\w+: /, ""));
      yield { name, data: JSON.parse(data) };
    }
  }
}
