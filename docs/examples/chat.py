#!/usr/bin/env python3
"""A whole Godwit client: talks to one user, catches up, reconnects, loses nothing and shows nothing twice.
usage: chat.py USER PASSWORD WITH [URL]     needs: pip install websockets (or: apt install python3-websockets)
Lines of the input are sent, what is said is printed. At the end of the input it waits for the last ack and leaves."""
import asyncio, contextlib, json, sys, threading, urllib.error, urllib.request, uuid, websockets

USER, PASSWORD, WITH = sys.argv[1:4]
URL = sys.argv[4] if len(sys.argv) > 4 else "http://127.0.0.1:7450"
TALK = "d:" + ":".join(sorted([USER, WITH]))
seen = 0  # every entry up to this conversationSeq was printed
unsent = []  # (clientMsgId, text), oldest first, until its ack; one is on its way at a time, so their order is kept
socket = None  # while connected and welcomed
number = None  # the receiver's seq, as last heard
ended = False  # no more input

def post(path, body):
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), {"content-type": "application/json"})
    return json.load(urllib.request.urlopen(request))

def log_in():
    account = {"user": USER, "password": PASSWORD, "device": "chat.py"}
    try:
        return post("/v1/accounts", account)["access_token"]
    except urllib.error.HTTPError as error:
        if error.code != 409:  # it exists: log in
            raise
        return post("/v1/sessions", account)["access_token"]

async def send_next():
    if socket and unsent:
        message = {"conversation": TALK, "clientMsgId": unsent[0][0], "message": {"text": unsent[0][1]}}
        with contextlib.suppress(websockets.ConnectionClosed):  # sent again after the next welcome
            await socket.send(json.dumps({"id": 1, "send": message}))

async def on_frame(frame):
    global seen, number
    if "error" in frame:
        again = frame["error"]["code"] in ("ERROR_CODE_UNAVAILABLE", "ERROR_CODE_RATE_LIMITED")
        raise OSError() if again else SystemExit(frame["error"]["message"])
    if "ack" in frame and unsent and frame["ack"]["clientMsgId"] == unsent[0][0]:
        del unsent[0]
        await send_next()
    entries = frame.get("deliver", frame.get("history", {})).get("entries", [])
    for entry in entries:
        if entry["conversation"] == TALK and int(entry["conversationSeq"]) == seen + 1:
            seen += 1
            print(entry["sender"] + ":", entry["message"].get("text", ""), flush=True)
    missed = any(entry["conversation"] == TALK and int(entry["conversationSeq"]) > seen for entry in entries)
    known, number = number, frame.get("deliver", frame.get("pong", {})).get("receiverSeq", number)
    if missed or "welcome" in frame or frame.get("history", {}).get("more") or ("pong" in frame and number != known):
        await socket.send(json.dumps({"id": 2, "history": {"conversation": TALK, "after": seen}}))

async def take(line):
    global ended
    ended = line is None
    if line:
        unsent.append((str(uuid.uuid4()), line))
        if len(unsent) == 1:
            await send_next()

def read_input(loop):  # in a thread of its own: reading a terminal blocks
    while line := sys.stdin.readline():
        asyncio.run_coroutine_threadsafe(take(line.strip()), loop)
    asyncio.run_coroutine_threadsafe(take(None), loop)

async def main():
    global socket
    threading.Thread(target=read_input, args=[asyncio.get_running_loop()], daemon=True).start()
    while not (ended and not unsent):
        try:
            async with websockets.connect(URL.replace("http", "ws", 1) + "/v1/ws", subprotocols=["godwit.v1.json"]) as new:
                await new.send(json.dumps({"id": 3, "hello": {"token": log_in()}}))
                welcome, socket = json.loads(await new.recv()), new
                await on_frame(welcome)
                await send_next()  # what has no ack is sent again: a retry is the same message
                while not (ended and not unsent):
                    try:
                        await on_frame(json.loads(await asyncio.wait_for(new.recv(), 1)))
                    except asyncio.TimeoutError:
                        await new.send('{"id": 4, "ping": {}}')
        except urllib.error.HTTPError as error:
            raise SystemExit(error.read().decode())
        except (OSError, websockets.ConnectionClosed):
            socket = None
            await asyncio.sleep(1)

asyncio.run(main())
