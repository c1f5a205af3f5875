// Audio of the microphone as a WAV file, which needs no codec.

/** Return samples between -1 and 1 as a WAV file of 16 bit and one channel. */
export function wavOf(samples, rate, name) {
  const data = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const write = (place, text) => [...text].forEach((letter, index) => data.setUint8(place + index, letter.charCodeAt(0)));
  write(0, "RIFF");
  data.setUint32(4, 36 + 2 * samples.length, true);
  write(8, "WAVEfmt ");
  data.setUint32(16, 16, true);
  data.setUint16(20, 1, true);
  data.setUint16(22, 1, true);
  data.setUint32(24, rate, true);
  data.setUint32(28, 2 * rate, true);
  data.setUint16(32, 2, true);
  data.setUint16(34, 16, true);
  write(36, "data");
  data.setUint32(40, 2 * samples.length, true);
  samples.forEach((value, index) => data.setInt16(44 + 2 * index, 32767 * Math.max(-1, Math.min(1, value)), true));
  return new File([data.buffer], name, { type: "audio/wav" });
}
