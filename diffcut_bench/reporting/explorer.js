"use strict";

// ---- The tree: no part of the page is needed here, so that tests can run it.

// Leaf region of each pixel, from base64 of pairs (region, length of run) of base-128 numbers, low digits first.
function decodeRuns(base64, count) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const leaves = new Uint32Array(count);
  let next = 0, filled = 0;
  const number = () => {
    let value = 0, scale = 1, byte;
    do {
      byte = bytes[next++];
      value += (byte & 127) * scale;
      scale *= 128;
    } while (byte > 127);
    return value;
  };
  while (next < bytes.length) {
    const region = number(), length = number();
    leaves.fill(region, filled, filled + length);
    filled += length;
  }
  return leaves;
}

// Two nodes for each cut, parents before children. A node is a segment at every tau with appears < tau <= divides.
function buildTree(reached, within) {
  const node = (parent, appears) => ({ parent, appears, divides: Infinity, parts: [] });
  const nodes = [node(-1, -Infinity)];
  const ofRegion = [0]; // at the end: the leaf that is left of each region
  reached.forEach((tau, cut) => {
    const parent = ofRegion[within[cut]];
    nodes[parent].divides = tau;
    nodes[parent].parts = [nodes.length, nodes.length + 1];
    nodes.push(node(parent, tau), node(parent, tau));
    [ofRegion[cut + 1], ofRegion[within[cut]]] = nodes[parent].parts;
  });
  return { nodes, ofRegion, steps: Float64Array.from(reached).sort() };
}

// The costs of cuts are single precision, and so is what they are compared with.
function isMade(reachedAt, tau) {
  return reachedAt < Math.fround(tau);
}

function countSegments(tree, tau) {
  return 1 + tree.steps.filter((reachedAt) => isMade(reachedAt, tau)).length;
}

// For each node the segment at tau that it lies in; for a node that is divided at tau, itself.
function segmentsAt(tree, tau) {
  const owner = new Int32Array(tree.nodes.length);
  tree.nodes.forEach(({ parent }, i) => {
    owner[i] = parent < 0 || isMade(tree.nodes[parent].divides, tau) ? i : owner[parent];
  });
  return owner;
}

// Pixels of each node.
function areasOf(tree, leaves) {
  const areas = new Float64Array(tree.nodes.length);
  const ofLeaf = new Float64Array(tree.ofRegion.length);
  for (let i = 0; i < leaves.length; i++) ofLeaf[leaves[i]]++;
  tree.ofRegion.forEach((node, region) => (areas[node] = ofLeaf[region]));
  for (let i = areas.length - 1; i > 0; i--) areas[tree.nodes[i].parent] += areas[i];
  return areas;
}

// RGB of each node: its two parts share out its range of hues, so that a part has nearly the colour of the whole.
function coloursOf(tree) {
  const { nodes } = tree;
  const weight = nodes.map(() => 1);
  for (let i = nodes.length - 1; i > 0; i--) weight[nodes[i].parent] += weight[i];
  const ranges = [[0, 330]];
  return nodes.map(({ parts: [first, rest] }, i) => {
    const [low, high] = ranges[i];
    if (first) {
      const [a, b] = [weight[first] ** 0.6, weight[rest] ** 0.6];
      const middle = low + ((high - low) * a) / (a + b);
      ranges[first] = [low, middle];
      ranges[rest] = [middle, high];
    }
    return rgb((low + high) / 2, 0.7, 0.42 + 0.26 * ((i * 0.618034) % 1));
  });
}

function rgb(hue, saturation, lightness) {
  const spread = saturation * Math.min(lightness, 1 - lightness);
  return [0, 8, 4].map((turn) => {
    const k = (turn + hue / 30) % 12;
    return Math.round(255 * (lightness - spread * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  });
}

// Node -> name, of the segments at a tau; names are of regions, "" where there is none.
function namedNodes(tree, names, tau) {
  const owner = segmentsAt(tree, tau);
  return new Map(names.map((name, region) => [owner[tree.ofRegion[region]], name]).filter(([, name]) => name));
}

// What a node is called: its own name, that of what it is a part of, or those of its parts.
function callNode({ nodes }, called, node) {
  if (called.has(node)) return called.get(node);
  for (let above = node; above >= 0; above = nodes[above].parent) {
    if (called.has(above)) return `part of ${called.get(above)}`;
  }
  const found = new Set(), open = [node];
  while (open.length) {
    const next = open.pop();
    if (called.has(next)) found.add(called.get(next));
    else open.push(...nodes[next].parts);
  }
  return [...found].sort().join(", ");
}

// For each node in the map the middle of its longest run along a row, near its middle row: [col, row].
function placesOf(tree, leaves, called, width) {
  const owner = new Int32Array(tree.nodes.length).fill(-1);
  tree.nodes.forEach(({ parent }, i) => (owner[i] = called.has(i) ? i : parent < 0 ? -1 : owner[parent]));
  const ofLeaf = tree.ofRegion.map((node) => owner[node]), rows = new Map();
  for (let i = 0; i < leaves.length; i++) {
    const [sum, count] = rows.get(ofLeaf[leaves[i]]) ?? [0, 0];
    rows.set(ofLeaf[leaves[i]], [sum + Math.floor(i / width), count + 1]);
  }
  const best = new Map();
  for (let start = 0, end = 0; start < leaves.length; start = end) {
    const node = ofLeaf[leaves[start]], row = Math.floor(start / width);
    while (end < (row + 1) * width && ofLeaf[leaves[end]] === node) end++;
    if (node < 0) continue;
    const [sum, count] = rows.get(node);
    const merit = end - start - Math.abs(row - sum / count) / 2;
    if (merit > (best.get(node)?.merit ?? -Infinity)) best.set(node, { merit, at: [(start + end) / 2 - row * width, row] });
  }
  return new Map([...best].map(([node, { at }]) => [node, at]));
}

// ---- PNG: indices into a palette, or grey of 8 or 16 bits.

function crc32(bytes) {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

function chunk(name, body) {
  const bytes = new Uint8Array(body.length + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, body.length);
  bytes.set([...name].map((letter) => letter.charCodeAt(0)), 4);
  bytes.set(body, 8);
  view.setUint32(body.length + 8, crc32(bytes.subarray(4, body.length + 8)));
  return bytes;
}

async function encodePng(values, width, height, bits, palette) {
  const size = bits / 8;
  const rows = new Uint8Array((width * size + 1) * height); // a 0 before each row: not filtered
  for (let i = 0; i < values.length; i++) {
    const at = i * size + Math.floor(i / width) + 1;
    if (bits === 16) rows[at] = values[i] >> 8;
    rows[at + size - 1] = values[i] & 255;
  }
  const stream = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const packed = new Uint8Array(await new Response(stream).arrayBuffer());
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([bits, palette ? 3 : 0], 8);
  const signature = Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10);
  const colours = palette ? [chunk("PLTE", Uint8Array.from(palette.flat()))] : [];
  return new Blob([signature, chunk("IHDR", header), ...colours, chunk("IDAT", packed), chunk("IEND", [])]);
}

// Segments numbered from 0 in the order of the tree: a palette of the page's colours up to 256, then grey of 16 bits.
function labelsPng(tree, leaves, colours, width, height, tau) {
  const owner = segmentsAt(tree, tau);
  const segments = [...new Set(tree.ofRegion.map((node) => owner[node]))].sort((a, b) => a - b);
  const numbers = new Map(segments.map((node, number) => [node, number]));
  const ofRegion = tree.ofRegion.map((node) => numbers.get(owner[node]));
  const palette = segments.length > 256 ? null : segments.map((node) => colours[node]);
  return encodePng(leaves.map((leaf) => ofRegion[leaf]), width, height, palette ? 8 : 16, palette);
}

function maskPng(tree, leaves, node, width, height) {
  const inside = insideOf(tree, node);
  return encodePng(leaves.map((leaf) => (inside[leaf] ? 255 : 0)), width, height, 8, null);
}

// Whether each region lies in a node.
function insideOf(tree, node) {
  const below = tree.nodes.map(() => false);
  tree.nodes.forEach(({ parent }, i) => (below[i] = i === node || (parent >= 0 && below[parent])));
  return tree.ofRegion.map((leaf) => below[leaf]);
}

// ---- The page.

function explore(data) {
  const { width, height, maxTau } = data;
  const $ = (id) => document.getElementById(id);
  const leaves = decodeRuns(data.leaves, width * height);
  const tree = buildTree(data.reached, data.within);
  const { nodes, ofRegion, steps } = tree;
  const areas = areasOf(tree, leaves);
  const colours = coloursOf(tree);
  const stage = $("stage");
  const shown = steps.filter((reachedAt) => isMade(reachedAt, maxTau));
  const fewest = countSegments(tree, 0); // more than one where a cut is made at every tau
  const layers = ["segments", "marks"].map((id) => {
    const context = $(id).getContext("2d");
    const image = context.createImageData(width, height);
    return { context, image, pixels: new Uint32Array(image.data.buffer) };
  });
  // Only between pixels of two leaves can there be a border at any tau: to the right, and below.
  const borders = [1, width].map((step) => {
    const found = [];
    for (let i = 0; i + step < leaves.length; i++) {
      if (leaves[i] !== leaves[i + step] && (step > 1 || (i + 1) % width)) found.push(i);
    }
    return Int32Array.from(found);
  });
  const called = namedNodes(tree, data.names, data.tau);
  const cameFrom = new Map(); // the part that a walk up left, so that the walk down finds it again
  let tau = data.tau, owner = segmentsAt(tree, tau), hovered = -1, selected = -1, pointer = -1, frame = 0;

  const colour = ([r, g, b], alpha) => ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;
  const outline = (pixels, groups, value) =>
    borders.forEach((border, axis) => {
      const step = axis ? width : 1;
      for (const i of border) {
        if (groups[leaves[i]] !== groups[leaves[i + step]]) pixels[i] = pixels[i + step] = value;
      }
    });

  function paintSegments() {
    const { context, image, pixels } = layers[0];
    const segment = ofRegion.map((node) => owner[node]);
    const alpha = Math.round($("opacity").value * 2.55);
    const ofLeaf = Uint32Array.from(segment, (node) => colour(colours[node], alpha));
    for (let i = 0; i < pixels.length; i++) pixels[i] = ofLeaf[leaves[i]];
    if ($("outlines").checked) outline(pixels, segment, colour([255, 255, 255], 230));
    context.putImageData(image, 0, 0);
  }

  function paintMarks() {
    const { context, image, pixels } = layers[1];
    pixels.fill(0);
    if (selected >= 0) {
      const inside = insideOf(tree, selected);
      const ofLeaf = Uint32Array.from(inside, (is) => (is ? 0 : colour([0, 0, 0], 100)));
      for (let i = 0; i < pixels.length; i++) pixels[i] = ofLeaf[leaves[i]];
      outline(pixels, inside, colour([255, 214, 10], 255));
    }
    if (hovered >= 0) outline(pixels, insideOf(tree, hovered), colour([0, 229, 255], 255));
    context.putImageData(image, 0, 0);
  }

  // One picture a frame, however many events come in it.
  function repaint() {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      paintSegments();
      paintMarks();
    });
  }

  function setTau(value) {
    tau = Math.min(Math.max(value, 0), maxTau);
    owner = segmentsAt(tree, tau);
    hovered = pointer < 0 ? -1 : owner[ofRegion[leaves[pointer]]];
    $("tau").value = tau;
    const segments = countSegments(tree, tau);
    const empty = new Set(ofRegion.map((node) => owner[node]).filter((node) => !areas[node])).size;
    $("tau").setAttribute("aria-valuetext", `${tau.toFixed(2)}, ${segments} ${plural(segments)}`);
    $("tau-now").textContent = tau.toFixed(2);
    $("count").textContent = segments;
    $("unit").textContent = plural(segments);
    $("most").textContent = empty ? `${empty} of these won no pixel` : `${fewest} to ${shown.length + 1} segments, logarithmic`;
    $("fewer").disabled = segments === fewest;
    $("more").disabled = !steps.some((reachedAt) => !isMade(reachedAt, tau) && isMade(reachedAt, maxTau));
    $("now").setAttribute("transform", `translate(${(100 * tau) / maxTau} 0)`);
    repaint();
  }

  const plural = (segments) => (segments === 1 ? "segment" : "segments");

  // To the next number of segments that there is: cuts that appear at one tau are made together.
  function stepBy(direction) {
    const made = countSegments(tree, tau) - 1;
    let wanted = direction > 0 ? steps[made] : steps[made - 1];
    const above = direction > 0 ? steps.find((step) => step > wanted) ?? maxTau : wanted;
    const below = direction > 0 ? wanted : steps.findLast((step) => step < wanted) ?? 0;
    wanted = (Math.min(above, maxTau) + below) / 2;
    // Where two steps are neighbours in single precision there is nothing in between.
    setTau(direction > 0 && countSegments(tree, wanted) <= made + 1 ? above : wanted);
  }

  function select(node) {
    selected = node;
    const walk = node >= 0 ? nodes[node] : { parent: -1, parts: [] };
    $("parent").disabled = walk.parent < 0;
    $("part").disabled = !walk.parts.length;
    $("other").disabled = walk.parent < 0;
    $("mask").disabled = $("none").disabled = node < 0;
    $("band").setAttribute("width", 0);
    $("chosen").textContent = "None. Click a segment, or press Enter on the picture.";
    if (node >= 0) {
      const from = Math.max(walk.appears, 0), to = Math.min(walk.divides, maxTau);
      const share = (100 * areas[node]) / leaves.length;
      const percent = share >= 10 ? share.toFixed(0) : share.toFixed(share >= 0.1 ? 1 : 2);
      const what = walk.parent < 0 ? "The whole picture" : `${percent} % of the picture`;
      const lasts = walk.divides < maxTau ? `from ${from.toFixed(3)} to ${to.toFixed(3)}` : `above ${from.toFixed(3)}`;
      // A cut that costs less than the one before it is made at once with it.
      const when = walk.appears < walk.divides ? `a segment at tau ${lasts}` : `divided as it appears, at tau ${to.toFixed(3)}`;
      const name = callNode(tree, called, node);
      $("chosen").textContent = `${name && `${name}. `}${what}: ${when}.`;
      $("band").setAttribute("x", (100 * from) / maxTau);
      $("band").setAttribute("width", Math.max((100 * (to - from)) / maxTau, 1));
    }
    repaint();
  }

  const walks = {
    parent() {
      const { parent } = nodes[selected] ?? { parent: -1 };
      if (parent < 0) return;
      cameFrom.set(parent, selected);
      select(parent);
    },
    part() {
      const parts = nodes[selected]?.parts ?? [];
      if (!parts.length) return;
      const under = parts.find((part) => pointer >= 0 && insideOf(tree, part)[leaves[pointer]]);
      const larger = areas[parts[0]] >= areas[parts[1]] ? parts[0] : parts[1];
      select(under ?? cameFrom.get(selected) ?? larger);
    },
    other() {
      const parent = nodes[nodes[selected]?.parent];
      if (parent) select(parent.parts.find((part) => part !== selected));
    },
    none: () => select(-1),
  };

  // From one segment of this tau to the next, as Enter and the arrows left and right do.
  function next(direction) {
    const segments = [...new Set(ofRegion.map((node) => owner[node]))].filter((node) => areas[node]);
    segments.sort((a, b) => areas[b] - areas[a]);
    const at = segments.indexOf(selected);
    select(segments[at < 0 ? 0 : (at + direction + segments.length) % segments.length]);
  }

  function pixelAt(event) {
    const box = stage.getBoundingClientRect();
    const col = Math.floor(((event.clientX - box.left - stage.clientLeft) * width) / stage.clientWidth);
    const row = Math.floor(((event.clientY - box.top - stage.clientTop) * height) / stage.clientHeight);
    return col >= 0 && col < width && row >= 0 && row < height ? row * width + col : -1;
  }

  function hover(at) {
    pointer = at;
    const node = at < 0 ? -1 : owner[ofRegion[leaves[at]]];
    if (node === hovered) return;
    hovered = node;
    repaint();
  }

  async function download(made, kind) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await made);
    link.download = `${data.stem}_tau${tau.toFixed(2)}_${kind}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }

  stage.addEventListener("pointermove", (event) => event.pointerType !== "touch" && hover(pixelAt(event)));
  stage.addEventListener("pointerleave", () => hover(-1));
  stage.addEventListener("click", (event) => {
    const at = pixelAt(event);
    if (at >= 0) select(owner[ofRegion[leaves[at]]]);
  });
  let turned = 0;
  stage.addEventListener(
    "wheel",
    (event) => {
      if (selected < 0 || event.ctrlKey) return; // nothing to walk from: the page scrolls
      event.preventDefault();
      turned += event.deltaMode ? event.deltaY * 40 : event.deltaY;
      if (Math.abs(turned) < 60) return;
      walks[turned < 0 ? "parent" : "part"]();
      turned = 0;
    },
    { passive: false },
  );
  const keys = {
    ArrowUp: walks.parent, ArrowDown: walks.part, ArrowLeft: () => next(-1), ArrowRight: () => next(1),
    Enter: () => next(1), " ": () => next(1), o: walks.other, Escape: walks.none,
    "+": () => $("more").click(), "-": () => $("fewer").click(),
  };
  stage.addEventListener("keydown", (event) => {
    const act = keys[event.key === "O" ? "o" : event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || !act) return;
    event.preventDefault();
    act();
  });
  for (const name of Object.keys(walks)) $(name).addEventListener("click", walks[name]);
  $("tau").addEventListener("input", () => setTau($("tau").valueAsNumber));
  $("fewer").addEventListener("click", () => stepBy(-1));
  $("more").addEventListener("click", () => stepBy(1));
  $("opacity").addEventListener("input", repaint);
  $("outlines").addEventListener("change", repaint);
  $("labels").addEventListener("click", () => download(labelsPng(tree, leaves, colours, width, height, tau), "labels"));
  $("mask").addEventListener("click", () => download(maskPng(tree, leaves, selected, width, height), "mask"));
  $("curve").addEventListener("click", (event) => {
    const box = $("curve").getBoundingClientRect();
    setTau(Math.round((100 * maxTau * (event.clientX - box.left)) / box.width) / 100);
  });

  const up = (segments) => 30 - (28 * Math.log(segments)) / Math.log(Math.max(shown.length + 1, 2));
  const path = Array.from(shown, (step, i) => `H${(100 * Math.max(step, 0)) / maxTau}V${up(i + 2)}`);
  $("steps").setAttribute("d", `M0 ${up(1)}${path.join("")}H100`);
  // Names on the picture, the largest segments first; one that would cover another is left out.
  const places = [...placesOf(tree, leaves, called, width)].sort(([a], [b]) => areas[b] - areas[a]);
  function putNames() {
    $("words").replaceChildren();
    if (!$("names").checked) return;
    const taken = [], box = stage.getBoundingClientRect();
    for (const [node, [col, row]] of places) {
      const word = document.createElement("span");
      word.textContent = called.get(node);
      $("words").append(word);
      const across = word.offsetWidth, down = word.offsetHeight;
      const left = Math.max(Math.min((col * box.width) / width - across / 2, box.width - across), 0);
      const top = Math.max(Math.min((row * box.height) / height - down / 2, box.height - down), 0);
      const covers = ([x, y, w]) => left < x + w && x < left + across && top < y + down && y < top + down;
      if (taken.some(covers)) word.remove();
      else taken.push([left, top, across]);
      word.style.left = `${left}px`;
      word.style.top = `${top}px`;
    }
  }
  $("named").hidden = !called.size;
  $("names").addEventListener("change", putNames);
  new ResizeObserver(putNames).observe(stage);
  select(-1);
  setTau(tau);
  return { setTau, select, paintSegments, paintMarks };
}

if (typeof document !== "undefined") window.explorer = explore(JSON.parse(document.getElementById("data").textContent));
if (typeof module !== "undefined") {
  module.exports = { decodeRuns, buildTree, countSegments, segmentsAt, areasOf, coloursOf, callNode, namedNodes, labelsPng, maskPng, insideOf };
}
