/** Signing in and out. */

import { byId, onClose, onSubmit, put } from "./dom.js";

const KEY = "exchange-login"; // in sessionStorage, which ends with the tab

/** @import { Exchange } from "./exchange.js" */

/**
 * Connect the sign-in dialog and buttons; sign in again after a reload.
 * @param {Exchange} exchange
 */
export function setUpLogin(exchange) {
  const dialog = byId("sign-in-dialog");
  const form = dialog.querySelector("form");
  const result = dialog.querySelector(".result");
  const saved = JSON.parse(sessionStorage.getItem(KEY) ?? "null");

  function login(user, token) {
    put(result, "Signing in …");
    result.classList.remove("bad");
    exchange.login(user, token, (reply) => {
      if (reply.type === "error") {
        put(result, `Refused: ${reply.message}`);
        result.classList.add("bad");
        sessionStorage.removeItem(KEY);
        return;
      }
      const wasOpen = dialog.open;
      dialog.close();
      sessionStorage.setItem(KEY, JSON.stringify({ user, token }));
      // The button that opened the dialog is gone.
      drawLogin(exchange);
      if (!wasOpen) return;
      const field = firstField();
      field.focus();
      field.select?.(); // what is typed next replaces its lots
    });
  }

  byId("sign-in").onclick = () => {
    put(result, "");
    dialog.showModal();
  };
  byId("sign-out").onclick = () => {
    sessionStorage.removeItem(KEY);
    form.reset();
    exchange.logout();
    drawLogin(exchange);
    byId("sign-in").focus();
  };
  onSubmit(
    form,
    ({ user, token }) => login(user.value, token.value),
    () => put(result, ""),
  );
  onClose(dialog);
  if (saved) login(saved.user, saved.token);
}

/** Return what one trades with first, if one can: the ticket or its opener. */
function firstField() {
  const fields = ["quick-buy", "ticket-qty", "sign-out"].map(byId);
  return fields.find((field) => field.checkVisibility());
}

/** @param {Exchange} exchange */
export function drawLogin({ account, trader }) {
  const isOurs = account !== null;
  const hadFocus = byId("main").contains(document.activeElement);
  byId("sign-in").hidden = isOurs;
  byId("sign-out").hidden = !isOurs;
  byId("own").hidden = !isOurs;
  for (const id of ["ticket", "quick"]) byId(id).hidden = trader === null;
  document.body.classList.toggle("signed-in", isOurs);
  const lost = hadFocus && !document.activeElement?.checkVisibility();
  if (lost || (hadFocus && document.activeElement === document.body)) {
    byId("sign-in").focus();
  }
}
