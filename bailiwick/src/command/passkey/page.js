"use strict";
const text = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const bytes = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
const say = (words) => { document.getElementById("said").textContent = words; };
const ask = async (what, body) => {
  const headers = { "content-type": "application/json" };
  const reply = await fetch(what, { method: "POST", headers, body: JSON.stringify(body) });
  if (!reply.ok) throw new Error(await reply.text());
  return reply.json();
};
const create = async (asked) => {
  const made = await navigator.credentials.create({ publicKey: {
    challenge: bytes(asked.challenge),
    rp: { id: asked.rp_id, name: "Bailiwick" },
    user: { id: bytes(asked.user_id), name: asked.user, displayName: asked.user },
    pubKeyCredParams: [{ type: "public-key", alg: -7 }],
    excludeCredentials: asked.passkeys.map((id) => ({ type: "public-key", id: bytes(id) })),
    authenticatorSelection: { userVerification: "required", residentKey: "preferred" },
    attestation: "none",
  } });
  return { client_data: text(made.response.clientDataJSON), attestation_object: text(made.response.attestationObject) };
};
const use = async (asked) => {
  const used = await navigator.credentials.get({ publicKey: {
    challenge: bytes(asked.challenge),
    rpId: asked.rp_id,
    allowCredentials: asked.passkeys.map((id) => ({ type: "public-key", id: bytes(id) })),
    userVerification: "required",
  } });
  return {
    client_data: text(used.response.clientDataJSON),
    authenticator_data: text(used.response.authenticatorData),
    signature: text(used.response.signature),
  };
};
document.getElementById("go").addEventListener("click", async () => {
  try {
    say("");
    const asked = await ask("challenge", {});
    say((await ask("answer", asked.adding ? await create(asked) : await use(asked))).said);
    document.getElementById("go").hidden = true;
  } catch (error) {
    say(String(error));
  }
});
