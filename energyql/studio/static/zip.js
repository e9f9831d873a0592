// A ZIP archive of files that are compressed already, such as PNGs, so they are only stored (APPNOTE.TXT, method 0).

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

// The CRC-32 of ZIP and PNG.
function crc(data) {
  let value = 0xffffffff;
  for (const byte of data) value = TABLE[(value ^ byte) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

// Little-endian numbers: pairs of a value and its bytes.
function pack(...fields) {
  const out = [];
  for (const [value, bytes] of fields) for (let at = 0; at < bytes; at += 1) out.push(Math.floor(value / 256 ** at) % 256);
  return out;
}

// `files`: pairs of a name and its bytes.
export function zip(files) {
  const parts = [];
  const directory = [];
  let offset = 0;
  for (const [name, data] of files) {
    const text = new TextEncoder().encode(name);
    // Version 2.0, names in UTF-8, stored, 1980-01-01 00:00, so that equal files give equal archives.
    const shared = pack([20, 2], [0x800, 2], [0, 2], [0, 2], [0x21, 2], [crc(data), 4], [data.length, 4], [data.length, 4], [text.length, 2], [0, 2]);
    const head = Uint8Array.from([...pack([0x04034b50, 4]), ...shared, ...text]);
    directory.push(...pack([0x02014b50, 4], [20, 2]), ...shared, ...pack([0, 2], [0, 2], [0, 2], [0, 4], [offset, 4]), ...text);
    parts.push(head, data);
    offset += head.length + data.length;
  }
  const end = pack([0x06054b50, 4], [0, 2], [0, 2], [files.length, 2], [files.length, 2], [directory.length, 4], [offset, 4], [0, 2]);
  const size = offset + directory.length + end.length;
  const whole = new Uint8Array(size);
  let at = 0;
  for (const part of [...parts, directory, end]) { whole.set(part, at); at += part.length; }
  return whole;
}
