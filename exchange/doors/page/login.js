/** Signing in and out. */

import { byId, onClose, onSubmit, put } from "./dom.js";

const KEY = "exchange-login"; // in sessionStorage, which ends with the tab

/** Connect the sign-in dialog and buttons; sign in again after a reload. */
export function setUpLogin(exchange) {
  const dialog = byId("sign-in-dialog");
  const form = dialog.querySelector("form");
  const result = dialog.querySelector(".result");
  const saved = JSON.parse(sessionStorage.getItem(KEY));

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
      if (wasOpen) firstField().focus();
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

/** Return what one trades with first: the ticket, or what opens it. */
function firstField() {
  const quick = byId("quick-buy");
  return quick.checkVisibility() ? quick : byId("ticket-qty");
}

export function drawLogin({ account }) {
  const isOurs = account !== null;
  const hadFocus = byId("main").contains(document.activeElement);
  byId("sign-in").hidden = isOurs;
  byId("sign-out").hidden = !isOurs;
  for (const id of ["ticket", "own", "quick"]) byId(id).hidden = !isOurs;
  document.body.classList.toggle("signed-in", isOurs);
  const lost = hadFocus && !document.activeElement.checkVisibility();
  if (lost || (hadFocus && document.activeElement === document.body)) {
    byId("sign-in").focus();
  }
}
