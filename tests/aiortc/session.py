"""What both scripts share: an aiortc peer of this machine, and one request for each way of a WHIP or WHEP session."""

import asyncio
import json
import urllib.parse
import urllib.request

import aioice.ice
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

# aioice leaves the loopback out of its addresses, and a machine may have no other.
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]


def tell(event, **facts):
    print(json.dumps({"event": event, **facts}), flush=True)


def peer():
    # Without servers: aiortc asks a STUN server of the open Internet by default.
    return RTCPeerConnection(RTCConfiguration(iceServers=[]))


def request(method, url, key=None, offer=None):
    headers = {"Content-Type": "application/sdp"} if offer else {}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    body = offer.encode() if offer else None
    return urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method), timeout=30)


async def begin(connection, url, key=None):
    """Offers, and takes the answer; returns the address of the session."""
    connected = asyncio.get_running_loop().create_future()

    @connection.on("connectionstatechange")
    def changed():
        state = connection.connectionState
        if state in ("connected", "failed", "closed") and not connected.done():
            connected.set_result(state)

    await connection.setLocalDescription(await connection.createOffer())
    offer = connection.localDescription.sdp
    with await asyncio.to_thread(request, "POST", url, key, offer) as response:
        session = urllib.parse.urljoin(url, response.headers["Location"])
        answer = response.read().decode()
    await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    async with asyncio.timeout(30):
        tell("connected", state=await connected)
    return session
