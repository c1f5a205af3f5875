// Audio worklet: passes the samples of the microphone on.

class Listener extends AudioWorkletProcessor {
  process([input]) {
    if (input.length) this.port.postMessage(input[0].slice());
    return true;
  }
}

registerProcessor("listener", Listener);
