#!/usr/bin/env python3
"""A complete Godwit client: sends lines from standard input and prints the conversation, each message exactly once.
usage: chat.py USER PASSWORD PEER [URL]     needs: pip install websockets (or: apt install python3-websockets)"""
import asyncio, json, sys, threading, urllib.error, urllib.request, uuid, websockets

USER, PASSWORD, PEER, URL = (sys.argv[1:] + ["http://127.0.0.1:7450"])[:4]
CONVERSATION = "d:" + ":".join(sorted([USER, PEER]))
position, receiver_seq = 0, None  # the last printed conversationSeq; the last receiver seq from the server
unacked = []  # messages without an ack, oldest first; only one is in flight, which keeps their order
PERMANENT = "INVALID_REQUEST", "UNAUTHENTICATED", "FORBIDDEN", "NOT_FOUND", "TOO_LARGE", "CONFLICT", "REPLACED", "REVOKED"

def log_in():
    for path in "/v1/accounts", "/v1/sessions":  # register; if registration is closed or the account exists, log in
        account = json.dumps({"user": USER, "password": PASSWORD, "device": "chat.py"}).encode()
        try:
            return json.load(urllib.request.urlopen(urllib.request.Request(URL + path, account)))["access_token"]
        except urllib.error.HTTPError as error:
            if path == "/v1/sessions" or error.code not in (403, 409):
                raise error if error.code in (429, 500, 503) else SystemExit(error.read().decode())

async def on_frame(socket, frame):
    global position, receiver_seq
    if "error" in frame:  # after a temporary error, reconnect and send again: a retry is the same message
        raise SystemExit(frame["error"]) if frame["error"].get("code", "").endswith(PERMANENT) else OSError
    if unacked and frame.get("ack", {}).get("clientMsgId") == unacked[0]["clientMsgId"]:
        del unacked[0]
    entries = [e for e in frame.get("deliver", frame.get("history", {})).get("entries", []) if e["conversation"] == CONVERSATION]
    for entry in (entry for entry in entries if int(entry["conversationSeq"]) == position + 1):
        position += 1
        if entry["kind"] == "message":
            print(entry["sender"] + ":", entry.get("content", {}).get("text", ""), flush=True)
    before, receiver_seq = receiver_seq, frame.get("deliver", frame.get("pong", {})).get("receiverSeq", receiver_seq)
    missed = any(int(e["conversationSeq"]) > position for e in entries) or "pong" in frame and receiver_seq != before
    if missed or "welcome" in frame or frame.get("history", {}).get("more"):
        await socket.send(json.dumps({"id": 2, "history": {"conversation": CONVERSATION, "after": position}}))

def read_input():
    for line in sys.stdin:
        unacked.append({"conversation": CONVERSATION, "clientMsgId": str(uuid.uuid4()), "content": {"text": line.strip()}})

async def main():
    (reader := threading.Thread(target=read_input, daemon=True)).start()
    while True:
        try:
            url, token = URL.replace("http", "ws", 1) + "/v1/ws", await asyncio.to_thread(log_in)
            async with websockets.connect(url, subprotocols=["godwit.v1.json"]) as socket:
                await socket.send(json.dumps({"id": 3, "hello": {"token": token}}))
                in_flight = None  # a new connection sends the oldest unacknowledged message again
                while unacked or reader.is_alive():
                    try:
                        await on_frame(socket, json.loads(await asyncio.wait_for(socket.recv(), 0.5)))
                    except asyncio.TimeoutError:
                        await socket.send('{"id": 4, "ping": {}}')
                    if unacked and in_flight != unacked[0]:
                        in_flight = unacked[0]
                        await socket.send(json.dumps({"id": 1, "send": in_flight}))
                return
        except (OSError, websockets.WebSocketException):
            await asyncio.sleep(1)

asyncio.run(main())
