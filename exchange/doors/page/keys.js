/** Keys of the whole page, their sheet, and the sound of a fill. */

import { byId, make, onClose } from "./dom.js";

const SOUND = "exchange-sound"; // in localStorage
const TONE = { buy: 880, sell: 587 }; // hertz
const TONE_S = 0.12;

const SHEET = [
  ["b, s", "buy, sell: to the ticket"],
  ["Enter", "send the order of the ticket, once"],
  ["Esc", "empty the ticket"],
  ["x", "cancel all orders"],
  ["l", "to the ladder"],
  ["↑ ↓ PgUp PgDn", "in the ladder: choose a price"],
  ["← →", "in the ladder: the side to buy, to sell"],
  ["Enter, Enter", "in the ladder: fill in, then send"],
  ["Del", "in the ladder: cancel own lots at the price"],
  ["c", "best prices into the middle of the ladder"],
  ["o", "all instruments, and back"],
  ["?", "this sheet"],
];

/** `acts`: a function for each of the keys b, s, x, l, c, o and Escape. */
export function setUpKeys(acts) {
  const dialog = byId("keys-dialog");
  const list = byId("keys");
  for (const [keys, words] of SHEET) {
    const row = make("div");
    row.append(make("dt", "", keys), make("dd", "", words));
    list.append(row);
  }
  onClose(dialog);
  byId("keys-open").onclick = () => dialog.showModal();
  document.addEventListener("keydown", (event) => {
    const { key, target } = event;
    if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
    if (document.querySelector("dialog[open]")) return;
    if (key === "Escape") {
      byId("menu").open = false;
      acts.Escape();
      return;
    }
    if (isTyping(target)) return;
    if (key === "?") dialog.showModal();
    else if (Object.hasOwn(acts, key)) acts[key]();
    else return;
    event.preventDefault();
  });
}

/** Whether a letter belongs to the field that has the focus. */
function isTyping(target) {
  // Numbers take no letters, so these keys are free there.
  const isFree = target.matches(
    "[type=radio], [type=checkbox], [type=number]",
  );
  return target.matches("input, select, textarea") && !isFree;
}

/** Sounds of fills; off until somebody wants them. */
export class Sound {
  constructor() {
    this.box = byId("sound");
    this.box.checked = localStorage.getItem(SOUND) === "on";
    this.box.onchange = () => {
      localStorage.setItem(SOUND, this.box.checked ? "on" : "off");
      if (this.box.checked) this.play("buy");
    };
    this.played = 0; // sounds so far
    /** @type {AudioContext | null} made when it is needed */
    this.context = null;
  }

  /** @param {"buy" | "sell"} side */
  play(side) {
    if (!this.box.checked) return;
    this.context ??= new AudioContext();
    const tone = new OscillatorNode(this.context, { frequency: TONE[side] });
    const volume = new GainNode(this.context, { gain: 0.1 });
    tone.connect(volume).connect(this.context.destination);
    tone.start();
    tone.stop(this.context.currentTime + TONE_S);
    this.played += 1;
  }
}
