// The time of a clip that is played, with its sound where the browser can decode the file, and its controls.

import { make } from "./dom.js";

const CLIP_POSITION = 0.5; // the server takes the clip from the middle of a longer recording

let shared = null;

/** Return the one audio context of the page. Browsers want it made after a key or a click. */
export function audioContext() {
  shared ??= new AudioContext();
  return shared;
}

/** Return the sound of a file, or null where the browser cannot decode it. */
export async function soundOf(file) {
  try {
    return await new OfflineAudioContext(1, 1, 44100).decodeAudioData(await file.arrayBuffer());
  } catch {
    return null;
  }
}

/** A clip's time in seconds, from 0 to its end. Listeners are called at every change. */
export class Clock {
  constructor(seconds, sound) {
    this.seconds = seconds;
    this.sound = sound;
    this.now = 0;
    this.playing = false;
    this.listeners = [];
    this.source = null;
    this.begun = 0;
  }

  /** Where the clip begins in its file. */
  get offset() {
    return this.sound ? CLIP_POSITION * Math.max(0, this.sound.duration - this.seconds) : 0;
  }

  listen(listener) {
    this.listeners.push(listener);
    listener(this);
  }

  notify() {
    for (const listener of this.listeners) listener(this);
  }

  seek(seconds) {
    const again = this.playing;
    this.stop();
    this.now = Math.max(0, Math.min(this.seconds, seconds));
    if (again) this.play();
    this.notify();
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  pause() {
    this.stop();
    this.notify();
  }

  play() {
    if (this.now >= this.seconds - 0.01) this.now = 0;
    if (this.sound) this.playSound();
    this.playing = true;
    const from = this.now;
    const start = performance.now();
    const turn = this.begun += 1;
    const step = (time) => {
      if (!this.playing || turn !== this.begun) return;
      this.now = Math.min(this.seconds, from + Math.max(0, time - start) / 1000);
      if (this.now >= this.seconds) this.stop();
      else requestAnimationFrame(step);
      this.notify();
    };
    requestAnimationFrame(step);
    this.notify();
  }

  playSound() {
    const context = audioContext();
    context.resume();
    this.source = context.createBufferSource();
    this.source.buffer = this.sound;
    this.source.connect(context.destination);
    this.source.start(0, this.offset + this.now, this.seconds - this.now);
  }

  stop() {
    this.playing = false;
    this.source?.stop();
    this.source = null;
  }
}

/** Return a button and a slider for a clock. Both work by keyboard. */
export function player(clock, step) {
  const button = make("button", { type: "button", class: "play", click: () => clock.toggle() }, "Play");
  const slider = make("input", {
    type: "range", min: 0, max: clock.seconds, step, value: 0, "aria-label": "Time in the clip",
    input: () => clock.seek(Number(slider.value)),
  });
  const said = make("output");
  clock.listen(() => {
    button.textContent = clock.playing ? "Pause" : "Play";
    slider.value = clock.now;
    said.textContent = `${clock.now.toFixed(2)} of ${clock.seconds.toFixed(2)} s`;
    slider.setAttribute("aria-valuetext", said.textContent);
  });
  return make("div", { class: "player" }, [button, slider, said]);
}
