// Continuation of a text: it appears as it is generated.

import { events } from "./api.js";

const at = (id) => document.getElementById(id);
const FIELDS = ["length", "temperature"];

/** Show the controls of a run that generates. `promptOf` returns the beginning of the text. */
export function offerGeneration(fields, promptOf, failed) {
  const [start, stop] = [at("generate-start"), at("generate-stop")];
  let running = null;
  for (const name of FIELDS) {
    const field = at(`generate-${name}`);
    field.value = fields[name].default;
    field.min = fields[name].minimum;
    if ("maximum" in fields[name]) field.max = fields[name].maximum;
  }
  at("generate").hidden = false;

  async function generate() {
    running = new AbortController();
    const [prompt, text] = [promptOf(), at("generate-text")];
    [start.disabled, stop.disabled] = [true, false];
    at("problem").hidden = true;
    at("generate-prompt").textContent = prompt;
    text.textContent = at("generate-end").textContent = "";
    at("generated").hidden = false;
    try {
      const numbers = Object.fromEntries(FIELDS.map((name) => [name, at(`generate-${name}`).valueAsNumber]));
      for await (const { name, data } of events("generate", { prompt, ...numbers, stream: true }, running.signal)) {
        if (name === "error") throw new Error(data.error);
        if (name === "end") at("generate-end").textContent = ended(data);
        else text.textContent += data.text;
      }
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
