import assert from "node:assert/strict";
import { test } from "node:test";
import { iceServers } from "../../src/ice-servers.ts";

test("the servers of a Link header are read, and nothing else of it", () => {
  assert.deepEqual(iceServers(null), []);
  const password = 'username="1800086400"; credential="a/b+c=, d"; credential-type="password"';
  const header = [
    '<stun:stun.example>; rel="ice-server"',
    `<turn:turn.example:3478?transport=udp>; rel="ice-server"; ${password}`,
    "<turns:turn.example>;rel=ice-server",
    '</next>; rel="next"',
    "nonsense",
  ].join(", ");
  assert.deepEqual(iceServers(header), [
    { urls: "stun:stun.example" },
    { urls: "turn:turn.example:3478?transport=udp", username: "1800086400", credential: "a/b+c=, d" },
    { urls: "turns:turn.example" },
  ]);
});
