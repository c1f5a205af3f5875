// Input zones: drop or choose a file, use microphone or camera, or write a text or values.

import { canCapture, listen, photograph } from "./capture.js";
import { make } from "./shared/dom.js";

const WORDS = {
  image: "an image", frame_pair: "an image", audio: "an audio file", video: "a video", points: "a point cloud or mesh",
  text: "a text", music: "a MIDI file", series: "a series", array: "an array",
};
const MAX_SECONDS = 10; // of a recording from the microphone

/** The zones of all inputs. `given` holds files and texts by field; `changed` is called with it. */
export class Zones {
  constructor(host, run, changed, failed) {
    this.host = host;
    this.run = run;
    this.changed = changed;
    this.failed = failed;
    this.given = {};
    this.plain = []; // fields of texts and values, each with its name
    this.build();
  }

  build() {
    const written = this.run.inputs.filter((input) => input.kind === "table");
    const files = this.run.inputs.filter((input) => input.kind !== "table");
    const together = files.filter((input) => input.file);
    if (together.length > 1) {
      const video = { ...together.find((input) => input.kind === "video"), name: "file" };
      const apart = make("details", {}, [make("summary", {}, "Only the frames, or only the audio")]);
      apart.append(...together.map((input) => this.zone(input, ["file"])));
      this.host.append(this.zone(video, together.map((input) => input.name), "a video with its audio"), apart);
    }
    this.host.append(...files.filter((input) => !together.includes(input) || together.length < 2).map((input) => this.zone(input)));
    if (written.length) this.host.append(this.row(written));
    if (this.plain.length) this.host.append(this.sending());
    if (this.run.inputs.length > 1 && together.length < 2 && !this.needsAll) this.host.append(make("p", { class: "quiet" }, "Inputs may be left out."));
  }

  /** Whether a request needs all inputs: both frames of a pair. */
  get needsAll() {
    return this.run.inputs.some((input) => input.kind === "frame_pair");
  }

  /** The beginning of a generation: the text that is written in the first field, or the file of the first input, if any. */
  get prompt() {
    if (this.plain.length) return this.plain[0][1].value;
    return this.given[this.run.inputs[0].name] ?? null;
  }

  notify() {
    for (const [name, field] of this.plain) {
      if (field.value.trim() !== "") this.given[name] = field.value;
      else if (typeof this.given[name] === "string") delete this.given[name];
    }
    const missing = this.run.inputs.filter((input) => !(input.name in this.given));
    if (Object.keys(this.given).length && (!this.needsAll || !missing.length)) this.changed(this.given);
  }

  /** Return the one button that sends the texts and values. Files are sent as soon as they are chosen. */
  sending() {
    const button = make("button", { type: "button", class: "strong", id: "send", click: () => this.notify() }, "Predict");
    return make("p", { class: "buttons" }, [button]);
  }

  /** Return a zone with a field for each value of a row. */
  row(inputs) {
    const zone = make("div", { class: "zone values" });
    for (const input of inputs) {
      const id = `give-${input.name}`;
      const field = input.choices?.length
        ? make("select", { id }, ["", ...input.choices].map((name) => make("option", { value: name }, name)))
        : make("input", { id, type: input.number ? "number" : "text", step: "any" });
      field.addEventListener("keydown", (event) => {
        if (event.key === "Enter") this.notify();
      });
      zone.append(make("label", { for: id }, input.name), field);
      this.plain.push([input.name, field]);
    }
    return zone;
  }

  /** Return the zone of an input; a file for it removes those of `others`. */
  zone(input, others = [], words = WORDS[input.kind] ?? "a file") {
    const shown = make("p", { class: "given", "aria-live": "polite" });
    const give = (value, name) => {
      for (const other of others) delete this.given[other];
      this.given[input.name] = value;
      for (const [written, field] of this.plain) if (written === input.name) field.value = "";
      shown.textContent = name;
      this.notify();
    };
    const isNamed = this.run.inputs.length > 1 && ![input.kind, "file"].includes(input.name);
    const several = isNamed ? ` for ${input.name}` : "";
    const forget = () => {
      delete this.given[input.name];
      shown.textContent = "";
    };
    const zone = make("div", { class: "zone", "data-zone": input.name });
    if (input.kind === "text") zone.append(...this.writing(input, forget));
    else zone.append(...this.choosing(input, `${words}${several}`, give));
    zone.append(shown, ...this.recording(input, give));
    this.droppable(zone, give);
    return zone;
  }

  choosing(input, words, give) {
    const id = `give-${input.name}`;
    const field = make("input", { type: "file", id, accept: (input.accept ?? []).join(",") });
    field.addEventListener("change", () => {
      if (field.files.length) give(field.files[0], "");
    });
    return [make("p", {}, [make("label", { for: id }, `Drop ${words} here, or choose one:`)]), field];
  }

  writing(input, forget) {
    const id = `give-${input.name}`;
    const area = make("textarea", { id, spellcheck: "false" });
    area.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.notify();
    });
    area.addEventListener("input", () => forget());
    this.plain.push([input.name, area]);
    const name = this.run.inputs.length > 1 && input.name !== "text" ? ` for ${input.name}` : "";
    return [make("p", {}, [make("label", { for: id }, `Write a text${name}, or drop a file here:`)]), area];
  }

  recording(input, give) {
    if (!canCapture || !["audio", "image", "frame_pair"].includes(input.kind)) return [];
    const isAudio = input.kind === "audio";
    const button = make("button", { type: "button" }, isAudio ? "Record" : "Take a photo");
    let open = null;
    button.addEventListener("click", async () => {
      try {
        if (open) return void open.stop();
        if (!isAudio) {
          const photo = await photograph();
          if (photo) give(photo, photo.name);
          return;
        }
        open = await listen(Math.min(this.run.limits?.seconds ?? MAX_SECONDS, MAX_SECONDS));
        button.textContent = "Stop";
        give(await open.file, "microphone.wav");
      } catch (error) {
        this.failed(error);
      } finally {
        if (button.textContent === "Stop" || !isAudio) button.textContent = isAudio ? "Record" : "Take a photo";
        open = null;
      }
    });
    return [make("p", { class: "buttons" }, [button])];
  }

  droppable(zone, give) {
    const over = (event, is) => {
      event.preventDefault();
      zone.classList.toggle("over", is);
    };
    zone.addEventListener("dragover", (event) => over(event, true));
    zone.addEventListener("dragleave", (event) => over(event, false));
    zone.addEventListener("drop", (event) => {
      over(event, false);
      const file = event.dataTransfer.files[0];
      if (file) give(file, file.name);
    });
  }
}
