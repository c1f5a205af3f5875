// Points in space that turn by mouse, finger and arrow keys. Those with more attention are larger and warmer.

import { colorOf, mixed, strength } from "./colors.js";
import { make, named, redraw, sharp } from "./dom.js";

// Points without attention are quiet; those with the most stand out most from the paper, white or dark.
const GLOW = {
  light: [[222, 190, 120], [242, 160, 50], [222, 80, 40], [150, 15, 60]],
  dark: [[110, 60, 110], [190, 60, 90], [242, 120, 45], [255, 235, 140]],
};
const TURN = Math.PI / 24;

/** Return the color of a point of some strength. */
export function glow(part) {
  if (part < 0.12) return named("point");
  const stops = GLOW[matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"];
  return `rgb(${mixed(stops, (part - 0.12) / 0.88).join(" ")})`;
}

/** Return points moved to their middle and scaled to a ball of radius 1. */
function centered(points) {
  const middle = [0, 1, 2].map((axis) => {
    const values = points.map((point) => point[axis]);
    const low = values.reduce((a, b) => Math.min(a, b), Infinity);
    const high = values.reduce((a, b) => Math.max(a, b), -Infinity);
    return (low + high) / 2;
  });
  const moved = points.map((point) => point.map((value, axis) => value - middle[axis]));
  const radius = moved.reduce((most, point) => Math.max(most, Math.hypot(...point)), 1e-6);
  return moved.map((point) => point.map((value) => value / radius));
}

/** Return the positions of points on the screen: x to the right, y down, z towards the eye. */
export function project(points, turn, tilt) {
  const [ct, st, ci, si] = [Math.cos(turn), Math.sin(turn), Math.cos(tilt), Math.sin(tilt)];
  return points.map(([x, y, z]) => {
    const right = x * ct - y * st;
    const away = x * st + y * ct;
    const near = z * si - away * ci;
    const far = 3.2 / (3.2 - near); // a little perspective: near points are larger
    return [right * far, -(z * ci + away * si) * far, near];
  });
}

/** Draw points; return a function that gives them the colors of another map. */
export async function pointsView(view, host) {
  const points = centered(view.points);
  const canvas = make("canvas", {
    class: "drawn points", tabindex: "0", role: "application", "aria-roledescription": "points in space",
    "aria-label": `${view.points.length} points. Arrow keys turn them, plus and minus come nearer and go away, Home starts over.`,
  });
  host.append(canvas);
  const start = { turn: 0.6, tilt: 0.38, zoom: 1 };
  const eye = { ...start };
  let shown = null;
  const draw = () => {
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width) return;
    const context = sharp(canvas, width, height);
    const scale = 0.43 * Math.min(width, height) * eye.zoom;
    const size = Math.max(1.3, Math.min(4.5, 70 / Math.sqrt(points.length))) * Math.sqrt(eye.zoom);
    const known = new Map(); // asking the style sheet for each point takes long
    const colors = (part) => known.get(part) ?? known.set(part, glow(part)).get(part);
    const placed = project(points, eye.turn, eye.tilt);
    const order = placed.map((_, index) => index).sort((a, b) => placed[a][2] - placed[b][2]);
    for (const index of order) {
      const [x, y, near] = placed[index];
      const part = shown ? strength(shown, index) : 0;
      context.globalAlpha = 0.6 + 0.4 * ((near + 1) / 2);
      context.fillStyle = shown ? colorOf(shown, part, colors) : glow(0);
      context.beginPath();
      context.arc(width / 2 + x * scale, height / 2 + y * scale, size * (0.8 + 0.9 * part), 0, 7);
      context.fill();
    }
    canvas.dataset.turn = eye.turn.toFixed(3);
  };
  const turn = (by, up) => {
    eye.turn += by;
    eye.tilt = Math.max(-1.5, Math.min(1.5, eye.tilt + up));
    draw();
  };
  const zoom = (times) => {
    eye.zoom = Math.max(0.5, Math.min(6, eye.zoom * times));
    draw();
  };
  const keys = {
    ArrowLeft: () => turn(-TURN, 0), ArrowRight: () => turn(TURN, 0), ArrowUp: () => turn(0, TURN), ArrowDown: () => turn(0, -TURN),
    "+": () => zoom(1.15), "-": () => zoom(1 / 1.15), Home: () => { Object.assign(eye, start); draw(); },
  };
  canvas.addEventListener("keydown", (event) => {
    if (!(event.key in keys) || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    keys[event.key]();
  });
  canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons && event.isPrimary) turn(event.movementX / 120, event.movementY / 120);
  });
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && document.activeElement !== canvas) return; // the page scrolls over it otherwise
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 500));
  }, { passive: false });
  const count = view.total > view.points.length ? `${view.points.length} of ${view.total} points. ` : "";
  host.append(make("p", { class: "quiet" }, `${count}Drag to turn, or the arrow keys; + and − come nearer and go away.`));
  redraw(canvas, draw);
  return (map) => {
    shown = map;
    draw();
  };
}
