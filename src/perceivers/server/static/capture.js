// Microphone and camera.

import { wavOf } from "./wav.js";

/** Whether the browser offers them: on localhost and over https only. */
export const canCapture = Boolean(navigator.mediaDevices?.getUserMedia);

function refusal(error, what) {
  const reasons = { NotAllowedError: `The browser was not allowed to use the ${what}.`, NotFoundError: `There is no ${what}.` };
  return new Error(reasons[error.name] ?? `The ${what} cannot be used: ${error.message}`);
}

async function streamOf(wanted, what) {
  try {
    return await navigator.mediaDevices.getUserMedia(wanted);
  } catch (error) {
    throw refusal(error, what);
  }
}

/** Record until `stop` is called, or for so many seconds. Returns `stop` and a promise of the file. */
export async function listen(seconds) {
  const stream = await streamOf({ audio: true }, "microphone");
  const context = new AudioContext();
  await context.audioWorklet.addModule("static/listener.js");
  const heard = [];
  const node = new AudioWorkletNode(context, "listener");
  node.port.onmessage = (event) => heard.push(event.data);
  context.createMediaStreamSource(stream).connect(node);
  let stop;
  const file = new Promise((resolve) => {
    const timer = setTimeout(() => stop(), 1000 * seconds);
    stop = () => {
      clearTimeout(timer);
      for (const track of stream.getTracks()) track.stop();
      const length = heard.reduce((sum, part) => sum + part.length, 0);
      const samples = new Float32Array(length);
      heard.reduce((place, part) => (samples.set(part, place), place + part.length), 0);
      const rate = context.sampleRate;
      context.close();
      resolve(wavOf(samples, rate, "microphone.wav"));
    };
  });
  return { stop, file };
}

/** Show the camera's view and return a photo as a file, or null if none was taken. */
export async function photograph() {
  const stream = await streamOf({ video: { facingMode: "environment" } }, "camera");
  const dialog = document.getElementById("camera");
  const video = document.getElementById("camera-picture");
  const take = document.getElementById("camera-take");
  video.srcObject = stream;
  take.disabled = true; // until the camera delivers
  dialog.showModal();
  await video.play();
  take.disabled = false;
  take.focus();
  return new Promise((resolve) => {
    let taken = null;
    document.getElementById("camera-close").onclick = () => dialog.close();
    take.onclick = () => {
      const canvas = document.createElement("canvas");
      canvas.width = video.videoWidth;
      canvas.height = video.videoHeight;
      canvas.getContext("2d").drawImage(video, 0, 0);
      canvas.toBlob((blob) => {
        taken = new File([blob], "camera.png", { type: "image/png" });
        dialog.close();
      }, "image/png");
    };
    dialog.addEventListener("close", () => {
      for (const track of stream.getTracks()) track.stop();
      video.srcObject = null;
      resolve(taken);
    }, { once: true });
  });
}
