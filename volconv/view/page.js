"use strict";
// The volumes of a page, each in a NiiVue of its own, linked by the place of their crosshairs.
const facts = JSON.parse(document.getElementById("facts").textContent);
const page = facts.page;
const screens = [];

// What a test, or a curious reader at the console, asks for.
window.volconv = { facts, screens };

function element(name, text, parent, className) {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  parent.append(made);
  return made;
}

function number(value) {
  return typeof value === "number" ? String(Number(value.toPrecision(7))) : String(value);
}

// A 4 x 4 matrix by a point.
function at(matrix, point) {
  return [0, 1, 2].map((i) => matrix[i][0] * point[0] + matrix[i][1] * point[1] + matrix[i][2] * point[2] + matrix[i][3]);
}

function failed(error) {
  const told = document.getElementById("failure");
  document.documentElement.dataset.state = "failed";
  told.hidden = false;
  told.textContent = "The volumes cannot be drawn: " + (error && error.message ? error.message : error);
}

// The largest of 1, 2, 5, 10, 20 ... that is not above a length.
function roundLength(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return Number(([5, 2, 1].find((step) => step * power <= most) * power).toPrecision(6));
}

// Pixels of the page for one unit of length.
function scaleOf(nv) {
  const slice = nv.screenSlices.find((s) => s.axCorSag <= 2 && s.leftTopWidthHeight[2] > 0);
  if (!slice) return 0;
  return ((slice.leftTopWidthHeight[2] / slice.fovMM[0]) * nv.scene.pan2Dxyzmm[3]) / nv.uiData.dpr;
}

function drawScaleBar(screen) {
  const pixels = scaleOf(screen.nv);
  if (!pixels) return;
  const length = roundLength(screen.canvas.clientWidth / 6 / pixels);
  screen.bar.style.width = length * pixels + "px";
  screen.bar.textContent = number(length) + " " + (page.unit || "voxels");
}

function tellColours(screen) {
  const volume = screen.nv.volumes[0];
  if (!volume) return;
  screen.ends[0].textContent = number(volume.cal_min);
  screen.ends[1].textContent = number(volume.cal_max);
}

function tell(screen, location) {
  const told = screen.shown;
  const voxel = at(told.to_voxel, location.mm).map((v) => Math.round(v) + 0);
  screen.cells.voxel.textContent = voxel.join(",");
  screen.cells.world.textContent = told.to_world ? at(told.to_world, voxel).map((v) => Number(v.toPrecision(5))).join(", ") : "";
  screen.cells.value.textContent = number(location.values[0].value);
}

async function show(shown, index) {
  const figure = element("figure", "", document.getElementById("screens"));
  const caption = element("figcaption", "", figure);
  if (page.shown.length > 1) element("b", shown.name, caption);
  element("span", shown.told.join("; "), caption);
  const holder = element("div", "", figure, "screen");
  const canvas = element("canvas", "", holder);
  const bar = element("div", "", holder, "bar");
  const colours = element("div", "", figure, "colours " + (shown.is_difference ? "difference" : "grey"));
  const ends = [element("span", "", colours), (element("i", "", colours), element("span", "", colours))];
  const row = element("tr", "", document.getElementById("live"));
  element("th", shown.name, row);
  const cells = { value: element("td", "", row), voxel: element("td", "", row), world: element("td", "", row) };
  const nv = new niivue.Niivue({
    backColor: [0, 0, 0, 1],
    crosshairColor: [1, 0.82, 0.29, 0.8],
    crosshairWidthUnit: "mm",
    fontColor: [0.95, 0.95, 0.95, 1],
    isOrientationTextVisible: shown.oriented,
    showAllOrientationMarkers: true,
    isSliceMM: true, // slices of the world: an oblique volume is shown as it lies, and places are exact
    isNearestInterpolation: true,
    isRadiologicalConvention: false,
    sagittalNoseLeft: !shown.oriented, // y runs to the right, as x does
    multiplanarShowRender: niivue.SHOW_RENDER.NEVER,
    multiplanarPadPixels: 8,
    dragAndDropEnabled: false,
    logLevel: "error",
  });
  const screen = { nv, canvas, bar, cells, ends, shown };
  screens.push(screen);
  nv.onLocationChange = (location) => tell(screen, location);
  await nv.attachToCanvas(canvas);
  const draw = nv.drawScene.bind(nv);
  nv.drawScene = () => {
    const pixels = scaleOf(nv);
    if (pixels && nv.opts.crosshairWidth !== 1.5 / pixels) {
      nv.opts.crosshairWidth = 1.5 / pixels; // always as many pixels
      if (nv.crosshairs3D) nv.crosshairs3D.mm = [NaN, NaN, NaN]; // made anew
    }
    const drawn = draw();
    drawScaleBar(screen);
    tellColours(screen);
    return drawn;
  };
  nv.addColormap("volconv_difference", page.difference_colours);
  const volume = await niivue.NVImage.loadFromBase64({
    base64: document.getElementById("volume-" + index).textContent.trim(),
    name: "volume-" + index + ".nii.gz",
    colormap: shown.is_difference ? "volconv_difference" : "gray",
    cal_min: shown.window[0],
    cal_max: shown.window[1],
  });
  nv.addVolume(volume);
  nv.setSliceType(nv.sliceTypeMultiplanar);
}

function setWindow() {
  const low = document.getElementById("low").valueAsNumber;
  const high = document.getElementById("high").valueAsNumber;
  if (!(low < high)) return;
  for (const screen of screens.filter((s) => !s.shown.is_difference)) {
    screen.nv.volumes[0].cal_min = low;
    screen.nv.volumes[0].cal_max = high;
    screen.nv.updateGLVolume();
  }
}

async function main() {
  for (const note of facts.notes) element("li", note, document.getElementById("notes"));
  document.getElementById("low").value = number(facts.window[0]);
  document.getElementById("high").value = number(facts.window[1]);
  document.getElementById("window").addEventListener("input", setWindow);
  document.getElementById("window").addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("world-head").textContent = page.shown[0].to_world ? "place x,y,z in " + page.unit : "";
  if (facts.difference) {
    const told = document.getElementById("largest");
    told.hidden = false;
    told.textContent = "Largest absolute difference in the slices first shown: " + number(facts.difference.largest_in_slices);
  }
  if (page.shown.length === 1) document.getElementById("screens").className = "one";
  for (const [index, shown] of page.shown.entries()) await show(shown, index);
  for (const screen of screens) {
    screen.nv.broadcastTo(screens.filter((other) => other !== screen).map((other) => other.nv), { "2d": true });
    screen.nv.scene.crosshairPos = screen.nv.mm2frac(screen.shown.start);
    screen.nv.drawScene();
    screen.nv.createOnLocationChange();
  }
  document.documentElement.dataset.state = "ready";
}

main().catch(failed);
