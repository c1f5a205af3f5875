// A picture with its map over it, and a film frame by frame.

import { grayed, loaded, tile } from "./colors.js";
import { make } from "./dom.js";

const LARGE = 640; // pixels of the longer side, at least where the picture is small

function board(view, label) {
  const scale = Math.max(1, Math.round(LARGE / Math.max(view.width, view.height)));
  const canvas = make("canvas", { class: "drawn picture", role: "img", "aria-label": label });
  canvas.width = view.width * scale;
  canvas.height = view.height * scale;
  return canvas;
}

function lay(canvas, beneath, map, extent) {
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.drawImage(beneath, 0, 0, canvas.width, canvas.height);
  if (map) context.drawImage(map, 0, 0, canvas.width * extent[1], canvas.height * extent[0]);
}

/** Draw a picture; return what draws another map over it. */
export async function pictureView(view, host) {
  const [colored, gray] = await Promise.all([loaded(view.picture), grayed(view.picture)]);
  const canvas = board(view, `${view.input} with the map over it`);
  const plain = make("img", { src: view.picture, alt: `${view.input} as the model saw it`, class: "drawn picture" });
  host.append(make("div", { class: "pair" }, [plain, canvas]));
  const [rows, columns] = view.axes;
  return (levels, shown) => {
    lay(canvas, shown ? gray : colored, shown && tile(levels, rows, columns), view.extent);
  };
}

/** Draw the frame of a clock's time; return what draws another map over it. */
export async function filmView(view, host, clock) {
  const colored = await Promise.all(view.frames.map(loaded));
  const gray = await Promise.all(view.frames.map(grayed));
  const canvas = board(view, `${view.input} with the map over it, frame by frame`);
  host.append(canvas);
  const [times, rows, columns] = view.axes;
  let levels = null;
  let shown = true;
  const draw = () => {
    if (!levels) return;
    const frame = Math.min(Math.floor(clock.now * view.rate + 1e-6), view.frames.length - 1);
    const time = Math.min(Math.floor(frame / view.step), times - 1);
    const own = levels.subarray(time * rows * columns, (time + 1) * rows * columns);
    canvas.dataset.frame = frame;
    lay(canvas, (shown ? gray : colored)[frame], shown && tile(own, rows, columns), view.extent.slice(1));
  };
  clock.listen(draw);
  return (next, visible) => {
    levels = next;
    shown = visible;
    draw();
  };
}
