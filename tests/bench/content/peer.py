"""One BitTorrent peer by libtorrent, for stork-bench: peer.py ROLE TORRENT FOLDER IP READY GO DONE

ROLE is `seed` or `fetch`. READY is made when the peer may be counted on. A fetching peer joins the
swarm when GO appears, and writes the time into DONE when all pieces are there and checked.
"""
import os
import sys
import time

import libtorrent

role, torrent, folder, ip, ready, go, done = sys.argv[1:]

# What one sets in a data centre: TCP only, quick connects, more peers served at once.
session = libtorrent.session({
    "listen_interfaces": ip + ":6881",
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    "connection_speed": 200,
    "unchoke_slots_limit": 20,
    "peer_connect_timeout": 3,
    "min_reconnect_time": 2,
    "alert_mask": libtorrent.alert.category_t.status_notification,
})


def mark(path):
    with open(path + ".new", "w") as f:
        f.write("%d" % (time.time() * 1000))
    os.rename(path + ".new", path)


def add():
    params = libtorrent.add_torrent_params()
    params.ti = libtorrent.torrent_info(torrent)
    params.save_path = folder
    flags = libtorrent.torrent_flags
    params.flags &= ~(flags.auto_managed | flags.paused)
    if role == "seed":
        params.flags |= flags.seed_mode
    return session.add_torrent(params)


if role == "seed":
    handle = add()
    while not handle.status().is_seeding:
        time.sleep(0.02)
    # Its announcement must have reached the tracker, or the others wait for the next one.
    while not any(t["verified"] for t in handle.trackers()):
        time.sleep(0.02)
    mark(ready)
    while True:
        time.sleep(3600)

mark(ready)
while not os.path.exists(go):
    time.sleep(0.01)
handle = add()
marked = False
while True:
    session.wait_for_alert(200)
    for alert in session.pop_alerts():
        if isinstance(alert, libtorrent.torrent_finished_alert) and not marked:
            mark(done)
            marked = True
