// The EXIF orientation of a JPEG.

const HEAD = 256 * 1024;

// Whether viewers turn or mirror it. Phones write JPEG, or HEIC, which the service turns, too.
export async function isTurned(file) {
  try {
    const orientation = find(new DataView(await file.slice(0, HEAD).arrayBuffer()));
    return orientation >= 2 && orientation <= 8;
  } catch {
    return false; // The file cannot be read, or ends within its EXIF data.
  }
}

function find(jpeg) {
  if (jpeg.getUint16(0) !== 0xffd8) return 1;
  for (let at = 2; jpeg.getUint8(at) === 0xff; at += 2 + jpeg.getUint16(at + 2)) {
    const isExif = jpeg.getUint16(at) === 0xffe1 && jpeg.getUint32(at + 4) === 0x45786966;
    if (isExif) return inTiff(new DataView(jpeg.buffer, at + 10));
  }
  return 1;
}

function inTiff(tiff) {
  const littleEndian = tiff.getUint16(0) === 0x4949;
  const directory = tiff.getUint32(4, littleEndian);
  const entries = tiff.getUint16(directory, littleEndian);
  for (let at = directory + 2; at < directory + 2 + 12 * entries; at += 12) {
    if (tiff.getUint16(at, littleEndian) === 0x0112) return tiff.getUint16(at + 8, littleEndian);
  }
  return 1;
}
