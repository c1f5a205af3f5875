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
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let reply;
  try {
    reply = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server does not answer. Is it still running?", 0);
  }
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

/** Send a request and return its JSON; ask for the token as long as the server requires another one. */
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
