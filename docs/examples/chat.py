#!/usr/bin/env python3
"""A whole Godwit client: sends the lines of its input, prints what is said, loses nothing and shows nothing twice.
usage: chat.py USER PASSWORD WITH [URL]     needs: pip install websockets (or: apt install python3-websockets)"""
import asyncio, json, sys, threading, urllib.error, urllib.request, uuid, websockets

USER, PASSWORD, WITH, URL = (sys.argv[1:] + ["http://127.0.0.1:7450"])[:4]
TALK = "d:" + ":".join(sorted([USER, WITH]))
seen, known = 0, None  # every entry up to this conversationSeq was printed; the receiver's seq, as last heard
unsent = []  # messages until their ack, oldest first; one is on its way at a time, so their order is kept
FINAL = "INVALID_REQUEST", "UNAUTHENTICATED", "FORBIDDEN", "NOT_FOUND", "TOO_LARGE", "CONFLICT", "REPLACED", "REVOKED"

def log_in():
    for path in "/v1/accounts", "/v1/sessions":  # register; if that is closed or the account exists, log in
        account = json.dumps({"user": USER, "password": PASSWORD, "device": "chat.py"}).encode()
        try:
            return json.load(urllib.request.urlopen(urllib.request.Request(URL + path, account)))["access_token"]
        except urllib.error.HTTPError as error:
            if path == "/v1/sessions" or error.code not in (403, 409):
                raise error if error.code in (429, 500, 503) else SystemExit(error.read().decode())

async def on_frame(socket, frame):
    global seen, known
    if "error" in frame:  # all others are answered by connecting again: a retry is the same message
        raise SystemExit(frame["error"]) if frame["error"].get("code", "").endswith(FINAL) else OSError
    if unsent and frame.get("ack", {}).get("clientMsgId") == unsent[0]["clientMsgId"]:
        del unsent[0]
    entries = [e for e in frame.get("deliver", frame.get("history", {})).get("entries", []) if e["conversation"] == TALK]
    for entry in (e for e in entries if int(e["conversationSeq"]) == seen + 1):
        seen += 1
        print(entry["sender"] + ":", entry["message"].get("text", ""), flush=True)
    before, known = known, frame.get("deliver", frame.get("pong", {})).get("receiverSeq", known)
    missed = any(int(e["conversationSeq"]) > seen for e in entries) or "pong" in frame and known != before
    if missed or "welcome" in frame or frame.get("history", {}).get("more"):
        await socket.send(json.dumps({"id": 2, "history": {"conversation": TALK, "after": seen}}))

def read_input():
    for line in sys.stdin:
        unsent.append({"conversation": TALK, "clientMsgId": str(uuid.uuid4()), "message": {"text": line.strip()}})

async def main():
    (reader := threading.Thread(target=read_input, daemon=True)).start()
    while True:
        try:
            where, token = URL.replace("http", "ws", 1) + "/v1/ws", await asyncio.to_thread(log_in)
            async with websockets.connect(where, subprotocols=["godwit.v1.json"], max_size=8 << 20) as socket:
                await socket.send(json.dumps({"id": 3, "hello": {"token": token}}))
                on_its_way = None  # what has no ack is sent again
                while unsent or reader.is_alive():
                    try:
                        await on_frame(socket, json.loads(await asyncio.wait_for(socket.recv(), 0.5)))
                    except asyncio.TimeoutError:
                        await socket.send('{"id": 4, "ping": {}}')
                    if unsent and on_its_way != unsent[0]:
                        on_its_way = unsent[0]
                        await socket.send(json.dumps({"id": 1, "send": on_its_way}))
                return
        except (OSError, websockets.WebSocketException):
            await asyncio.sleep(1)

asyncio.run(main())
