// A button and a slider for the time of a clip. Both work by keyboard.

import { make } from "./dom.js";

/** Return what plays a clock. */
export function player(clock, step) {
  const button = make("button", { type: "button", class: "play", click: () => clock.toggle() }, "Play");
  const slider = make("input", {
    type: "range", min: 0, max: clock.seconds, step, value: 0, "aria-label": "Time in the clip",
    input: () => clock.seek(Number(slider.value)),
  });
  const told = make("output");
  clock.listen(() => {
    button.textContent = clock.playing ? "Pause" : "Play";
    slider.value = clock.now;
    told.textContent = `${clock.now.toFixed(2)} of ${clock.seconds.toFixed(2)} s`;
    slider.setAttribute("aria-valuetext", told.textContent);
  });
  return make("div", { class: "player" }, [button, slider, told]);
}
