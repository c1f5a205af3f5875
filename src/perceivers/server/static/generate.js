// Continuation of a text, which appears as it is generated, or of a file, whose continuation is a file to save.

import { events, post } from "./api.js";

const at = (id) => document.getElementById(id);
const FIELDS = ["length", "temperature"];

/** Show the controls of a run that generates. `promptOf` returns the beginning: a text, a file, or nothing. */
export function offerGeneration(fields, promptOf, failed) {
  const [start, stop] = [at("generate-start"), at("generate-stop")];
  const isFile = "format" in fields;
  let running = null;
  for (const name of FIELDS) {
    const field = at(`generate-${name}`);
    field.value = fields[name].default;
    field.min = fields[name].minimum;
    if ("maximum" in fields[name]) field.max = fields[name].maximum;
  }
  if (isFile) at("generate-title").textContent = "Continue the file, or begin a new one";
  at("generate").hidden = false;

  async function generateText(prompt, numbers) {
    const text = at("generate-text");
    at("generate-prompt").textContent = prompt;
    for await (const { name, data } of events("generate", { prompt, ...numbers, stream: true }, running.signal)) {
      if (name === "error") throw new Error(data.error);
      if (name === "end") at("generate-end").textContent = ended(data);
      else text.textContent += data.text;
    }
  }

  async function generateFile(prompt, numbers) {
    const given = prompt ? { prompt } : {};
    const { file, headers } = await post("generate", given, numbers, running.signal);
    const link = at("generate-link");
    URL.revokeObjectURL(link.href);
    link.href = URL.createObjectURL(file);
    link.download = `generated.${fields.format.default}`;
    at("generate-file").hidden = false;
    const fact = (name) => JSON.parse(headers.get(`x-${name}`));
    at("generate-end").textContent = ended({ tokens: fact("tokens"), prompt_is_cut: fact("prompt-is-cut"), milliseconds: fact("milliseconds") });
  }

  async function generate() {
    running = new AbortController();
    [start.disabled, stop.disabled] = [true, false];
    at("problem").hidden = at("generate-file").hidden = true;
    at("generate-prompt").textContent = at("generate-text").textContent = at("generate-end").textContent = "";
    at("generated").hidden = false;
    at("generate-text").parentElement.hidden = isFile;
    try {
      const numbers = Object.fromEntries(FIELDS.map((name) => [name, at(`generate-${name}`).valueAsNumber]));
      await (isFile ? generateFile : generateText)(promptOf(), numbers);
    } catch (error) {
      if (error.name === "AbortError") at("generate-end").textContent = "Stopped.";
      else failed(error);
    }
    [start.disabled, stop.disabled] = [false, true];
  }

  start.addEventListener("click", generate);
  stop.addEventListener("click", () => running?.abort());
}

function ended(data) {
  const cut = data.prompt_is_cut ? " Only the end of the prompt was read: it is longer than the context." : "";
  return `${data.tokens} tokens in ${(data.milliseconds / 1000).toFixed(1)} s.${cut}`;
}
