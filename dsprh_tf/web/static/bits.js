// A code as cells: one per bit; those that differ from another code are marked.

const SVG = "http://www.w3.org/2000/svg";
const COLUMNS = 32;

export function bitsOf(hex) {
  return [...hex].flatMap((digit) => {
    const value = parseInt(digit, 16);
    return [8, 4, 2, 1].map((weight) => (value & weight ? 1 : 0));
  });
}

export function drawBits(hex, other = null) {
  const bits = bitsOf(hex);
  const others = other === null ? bits : bitsOf(other);
  const columns = Math.min(COLUMNS, bits.length);
  const rows = Math.ceil(bits.length / columns);
  const paths = { "off same": "", "on same": "", "off differs": "", "on differs": "" };
  bits.forEach((bit, i) => {
    const differs = bit !== others[i];
    const x = (i % columns) * 4;
    const y = Math.floor(i / columns) * 6;
    // Differing cells are taller: the mark does not depend on colour alone.
    const [top, height] = differs ? [y, 5] : [y + 1, 3];
    paths[`${bit ? "on" : "off"} ${differs ? "differs" : "same"}`] += `M${x} ${top}h3v${height}h-3z`;
  });
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${columns * 4 - 1} ${rows * 6 - 1}`);
  svg.setAttribute("class", "bits");
  svg.setAttribute("role", "img");
  const count = bits.filter((bit, i) => bit !== others[i]).length;
  const set = bits.filter(Boolean).length;
  svg.setAttribute(
    "aria-label",
    other === null
      ? `Code of ${bits.length} bits, ${set} of them set`
      : `Code of ${bits.length} bits, ${count} of them differ from the query`,
  );
  for (const [name, d] of Object.entries(paths)) {
    if (!d) continue;
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("class", name);
    path.setAttribute("d", d);
    svg.append(path);
  }
  return svg;
}
