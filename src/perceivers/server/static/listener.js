// Runs where the browser makes sound: hands over what the microphone hears.

class Listener extends AudioWorkletProcessor {
  process([input]) {
    if (input.length) this.port.postMessage(input[0].slice());
    return true;
  }
}

registerProcessor("listener", Listener);
