// The page: gets the inputs of the run, sends requests and shows predictions and explanations.

import { post, request } from "./api.js";
import { offerGeneration } from "./generate.js";
import { drawAnswers } from "./shared/answers.js";
import { make } from "./shared/dom.js";
import { Views } from "./shared/views.js";
import { Zones } from "./zones.js";

const at = (id) => document.getElementById(id);
const [depth, latent, head, overlay] = ["depth", "latent", "head", "overlay"].map(at);
const views = new Views(at("views"));

let run = null;
let given = null; // inputs of the maps
let shown = []; // views of the last explanation
let pending = null; // aborts the requests in progress
let waiting = null; // timer of a slider that is still moving

function about() {
  const kinds = run.inputs.map((input) => input.name).join(" + ");
  const [only] = run.outputs.length === 1 ? run.outputs : [];
  const single = only?.names.length > 1 ? `${only.names.length} ${only.task === "regression" ? "numbers" : "classes"}` : only?.names[0] ?? only?.task;
  const outputs = only ? single : run.outputs.map((output) => output.name).join(", ");
  const predicted = run.generation ? "next token" : outputs;
  return `${kinds} → ${predicted} · ${run.reads} ${run.reads === 1 ? "cross-attention" : "cross-attentions"} by ${run.latents} latents`;
}

function fail(error) {
  const problem = at("problem");
  problem.textContent = error.message;
  problem.hidden = false;
}

function busy(is) {
  document.body.setAttribute("aria-busy", is);
  for (const part of [at("answer"), at("views")]) part.classList.toggle("busy", is);
}

/** Return the file that was given for an input, perhaps for a column that it shares with another one. */
function fileOf(name) {
  const input = run.inputs.find((one) => one.name === name);
  const shared = input?.file ? ["file", ...run.inputs.filter((one) => one.file === input.file).map((one) => one.name)] : [];
  return [name, ...shared].map((field) => given?.[field]).find((value) => value instanceof File) ?? null;
}

/** Fields of a request beside the sample: all cross-attentions at once, so that the slider over depth needs no request. */
function options() {
  return { read: "all", latent: latent.value === "0" ? "mean" : latent.value - 1, head: head.value };
}

async function predict(next) {
  pending?.abort();
  pending = new AbortController();
  const { signal } = pending;
  given = { ...next };
  at("problem").hidden = true;
  busy(true);
  try {
    const predicted = await post("predict", given, {}, signal);
    const spoken = drawAnswers(at("answers"), predicted.answers);
    at("time").textContent = predicted.milliseconds ? `in ${Math.round(predicted.milliseconds)} ms` : "";
    at("answer").hidden = false;
    at("spoken").textContent = `Output: ${spoken}. ${await explain(signal)}`;
  } catch (error) {
    if (error.name === "AbortError") return;
    shown = []; // the maps are of another sample
    at("answer").hidden = at("views").hidden = at("controls").hidden = true;
    fail(error);
  }
  busy(false);
}

/** Draw the maps; return a sentence for screen readers: done, or why this run has none. */
async function explain(signal) {
  try {
    const explained = await post("explain", given, options(), signal);
    shown = explained.views;
    await views.show(shown, fileOf);
  } catch (error) {
    if (error.status !== 422) throw error;
    shown = [];
    at("empty").textContent = error.message;
  }
  at("empty").hidden = shown.length > 0;
  at("views").hidden = at("controls").hidden = !shown.length;
  if (!shown.length) return at("empty").textContent;
  depths();
  draw();
  return "The attention map is drawn.";
}

/** Draw the maps of another latent or head for the same sample. */
async function update() {
  if (!given) return;
  pending?.abort();
  pending = new AbortController();
  try {
    const explained = await post("explain", given, options(), pending.signal);
    shown = explained.views;
    views.replace(Object.fromEntries(shown.map((view) => [view.input, view])));
    depths();
    draw();
  } catch (error) {
    if (error.name !== "AbortError") fail(error);
  }
}

function depths() {
  depth.max = shown[0].maps.length - 1;
  depth.value = Math.min(depth.value, depth.max);
  depth.disabled = depth.max === "0";
}

function draw() {
  if (!shown.length) return;
  const { cross_attention: key, title } = shown[0].maps[depth.value];
  at("depth-said").textContent = title;
  depth.setAttribute("aria-valuetext", title);
  views.draw(key, overlay.checked);
}

function showLatent() {
  const text = latent.value === "0" ? `mean of all ${run.latents}` : `${latent.value} of ${run.latents}`;
  at("latent-said").textContent = text;
  latent.setAttribute("aria-valuetext", text);
}

function listenToControls() {
  latent.max = run.latents;
  const heads = Math.max(...run.heads, 1);
  head.append(make("option", { value: "mean" }, heads > 1 ? `mean of ${heads}` : "only one"));
  if (heads > 1) for (let one = 0; one < heads; one += 1) head.append(make("option", { value: one }, `${one + 1} of ${heads}`));
  head.disabled = heads === 1;
  showLatent();
  depth.addEventListener("input", draw);
  overlay.addEventListener("change", draw);
  head.addEventListener("change", update);
  latent.addEventListener("input", () => {
    showLatent();
    clearTimeout(waiting);
    waiting = setTimeout(update, 120);
  });
}

async function begin() {
  try {
    run = await request("run");
  } catch (error) {
    return fail(error);
  }
  document.title = `${run.name} · perceivers`;
  at("name").textContent = run.name;
  at("about").textContent = about();
  const zones = new Zones(at("zones"), run, predict, fail);
  if (run.generation) offerGeneration(run.generation, () => zones.prompt, fail);
  listenToControls();
  document.body.dataset.ready = "true";
}

begin();
