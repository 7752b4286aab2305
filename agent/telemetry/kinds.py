"""The kinds of events there are, as the journal tells them apart: how urgent each is, and the id of its explanation.

An id is MESSAGE_ID= of systemd.journal-fields(7): random once, and then for ever the same. ``systemd/agent.catalog``
explains each of them, and docs/journal.md lists them; a test holds the three together.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, get_args

ERR, WARNING, NOTICE, INFO = 3, 4, 5, 6
"""Priorities of syslog(3)."""


class Kind(NamedTuple):
    """``id`` is 128 bits in hexadecimal."""

    id: str
    priority: int


KINDS = {
    # of a service
    "started": Kind("6f766e281a4f40428036e23bfb80dc79", INFO),
    "ready": Kind("df73a9df8f6143e583b071d844de91c6", INFO),
    "exited": Kind("d799c4ff58cd4fb18a129f56c59ea0d2", WARNING),  # if nobody asked it to, and not with 0
    "restarting": Kind("dee33a3cf5464832ae3b01cfcedc8604", NOTICE),
    "backoff": Kind("e098bbc853a04ab192e00ffc41aa2f74", WARNING),
    "completed": Kind("946f6cc0cf524383868011ce5e0296ef", INFO),
    "failed": Kind("fb80b9a8c902439e989623669c3244ae", ERR),
    "stopping": Kind("e3ef36de654b42ce9243029c1fe39859", INFO),
    "stopped": Kind("a92d2b2ff0514ec185d0fc79980a0de9", INFO),
    "hung": Kind("06d827ac06ee4edda8c7d93764c86526", WARNING),
    "start_timeout": Kind("594509389f574fe5a7b62790df7769fd", WARNING),
    "run_timeout": Kind("c725d38ab59245dd80b2ac995576203f", WARNING),
    "killed": Kind("549846718d1a4f818d55a2aad70d10b9", WARNING),
    "unkillable": Kind("b929bb27bef64f17b90e4833aa78f47f", ERR),
    "out_of_memory": Kind("ab03536bdedc4b3dbef39f6aa17d911a", ERR),
    "spawn_failed": Kind("e16d7738d9514b889c6e21196f193215", ERR),
    "skipped": Kind("c99c60466e7447959773cb257e50093e", WARNING),
    "calendar_failed": Kind("3a46978bb32b47f7b17a136f9a3fbe5d", ERR),
    "limits_not_in_force": Kind("e01e7694161a426f92a19207a166df69", WARNING),
    "output_left_out": Kind("dbb27792073f4e92a84684cf35791ea3", WARNING),
    # of a capture
    "interface_down": Kind("86bb3013652b489f98aa9559a54defa3", WARNING),
    "interface_lost": Kind("c95250eb4e33449ba42f6a75e2cef7e0", WARNING),
    "interface_back": Kind("317fc01ecba54446bfcf4896b24e24fa", NOTICE),
    "interface_found": Kind("27e1b3eaba314fd184c91fa8fe1e07c2", NOTICE),
    "interfaces_left_out": Kind("a78742ec64f946f9a86cb191bdcc4d60", WARNING),
    "interfaces_polled": Kind("060bf4ee98d9441c8ededca3300d0d75", WARNING),
    "ring_shrunk": Kind("3601fa2cb9cf4c07bc6f8800b3ad40f0", WARNING),
    "storage_error": Kind("2d73145c6b664a72bbb9e659311d6820", ERR),
    "storage_resumed": Kind("316becd500394a7ca19ce6a693d3bdc6", NOTICE),
    "storage_low": Kind("c6e7c3c4c6f7429db4874627b371b38d", WARNING),
    "storage_enough": Kind("f8535216e65ac2dcaf84724a0681a716", NOTICE),
    "segment_recovered": Kind("05f30fd1ee5443bcabd112cd5632a489", NOTICE),
    "segment_unreadable": Kind("ef13cea508ce4434a5f4a62170898534", WARNING),
    "segment_stuck": Kind("7205be12bf4148b9876359be3fe0cd60", WARNING),
    "clock_ahead": Kind("1e52d3c022cf4e85b9c58d8c5d14c026", WARNING),
    "pin_broken": Kind("290a56d0335b18800ad4ae5a6b35049d", WARNING),
    "pin_unreadable": Kind("a86ce59159f8996e59361fc8956023d7", WARNING),
    "pin_expired": Kind("4417fc1522454f5799d47314897a5c34", NOTICE),
    "packets_unaccounted": Kind("260635bc8b874a44bfde21c01d4592a3", WARNING),
    "companion_ended": Kind("9d226e0632c2e7a50fe2acb051ff9240", WARNING),
    "companion_hung": Kind("2dad3a5fe1943322c8a760e441b23822", WARNING),
    "index_failed": Kind("0d07807c0371915d878f1cad4c7eff55", WARNING),
    "triggered": Kind("ec57a961be6636e011599b72bc1dd5a4", NOTICE),
    "trigger_failed": Kind("8c23f6e12a81ddea51ba5ac291a515ab", ERR),
    "export_failed": Kind("ead4342c340356dc0e95997048e8c494", WARNING),
    "export_resumed": Kind("96631628afba9be6652f37fbb62370d0", NOTICE),
    "inventory_lost": Kind("4f5f2f07737a52474d5f33887db2bae8", WARNING),
    "inventory_not_written": Kind("2ec94a53c2010ea9a7d0cdbf49ae72a3", WARNING),
    "inventory_blind": Kind("58d7298e5f8917f84c6fc9e3c12128b0", WARNING),
    "packet_aside": Kind("7f568c4c3794e9578ef9d9e5209c51ee", NOTICE),
    # of a scan
    "scan_finished": Kind("8ff8a096ed9a4c7096c2cb93f0cc3161", INFO),
    "scan_failed": Kind("5444d4475fe2485e85f616984726b694", ERR),
    "scan_interrupted": Kind("87a8813a9c5649dfbae9fd68ba43117a", NOTICE),
    "scan_stopped": Kind("ea8ebd9464d14786b76cab4041d05429", NOTICE),
    "scan_paused": Kind("bd36ab50364f47d7842c4cb641890c75", NOTICE),
    "scan_resumed": Kind("448dbe135d384a5995464092c9609f74", NOTICE),
    "host_new": Kind("df81ebaed9d64d6daad0b65ac602f13e", NOTICE),
    "host_gone": Kind("e575290bf16a4352970a8b1c4c38dc0d", NOTICE),
    "port_opened": Kind("dceeba2485db4024837395cd8b9280e2", NOTICE),
    "port_closed": Kind("23ed8714ca6648e7b878c6b2b475b39a", NOTICE),
    "port_filtered": Kind("0e44460db13c40098877887dccfa4b96", INFO),
    "service_changed": Kind("64bb95a4f3a744f9b7df2b74418aef4d", NOTICE),
    "version_changed": Kind("13b73b7b211c4f6fb0a22b86b906ad56", NOTICE),
    "tls_added": Kind("fc8f034b420441ef9a50a5ae343d1469", NOTICE),
    "tls_removed": Kind("fabda1b2c6fa4e4cab546acc12e85bba", WARNING),
    "certificate_changed": Kind("d077796915614fb8ac7767ecf4583a3c", NOTICE),
    "flapping": Kind("f418ec590706486d880f98783dc6c17b", WARNING),
    "scan_changes": Kind("a7628d168d2f4525b222682fc3e13506", NOTICE),
    "database_replaced": Kind("17ad4eaf7d384e88ac2ed7b757eb4242", WARNING),
    # of the watch
    "drift_found": Kind("e4f0ca088eba4481a78813bfcf35ae35", WARNING),
    "drift_gone": Kind("bb1215dcd2d844ebb3481e2e177bd612", NOTICE),
    # of notifications
    "notify_failed": Kind("92b6311af90161394e262679d461e349", WARNING),
    "notify_resumed": Kind("c870b1e5408fe36e49ae22a839448009", NOTICE),
    "notify_dropped": Kind("405b29e169708fb8ec95835b99adfb34", ERR),
    # of the agent
    "agent_started": Kind("45f91372c91c494a8e3ba6ec24041472", INFO),
    "agent_ready": Kind("ce533da99e824112bf1a6d758aac7519", INFO),
    "agent_stopping": Kind("e49676495a9f42c9882b761d82d55ea4", INFO),
    "agent_stopped": Kind("4969626589984bbaa79feb449d928c73", INFO),
    "predecessor_ended": Kind("3d7b7e1e4d7d4115830da07161713422", WARNING),
    "reloaded": Kind("570200f18894492b9b88132707ae8a56", INFO),
    "reload_refused": Kind("0dd59adaaa6a4d8aa06631986024f0ea", ERR),
    "handover": Kind("129587b160634a0b83a489afa02e285c", NOTICE),
    "handed_over": Kind("602bc70c14f14b328dff4f6604ce10be", NOTICE),
    "handover_failed": Kind("cd58ffd9cb0a40cfb2ce4ed3e6a4d50d", ERR),
    "upgrade_refused": Kind("a9729aa300594872951c193b04862931", ERR),
    "clock_set": Kind("92e68d5c361b4742830f6d04544e8add", NOTICE),
    "storage": Kind("c7b0b2d562844276a0b75d1063f17036", WARNING),
    "journal_lost": Kind("105d0f13e96a4a0282db3de68feefc34", WARNING),
    "error": Kind("ed3870ea8263486c9fe99b59ad8e38bb", ERR),
    "bug": Kind("fb22a138e21c4fecb8af1957b049eecf", ERR),
}
"""By the kind of event. A service may tell of kinds of its own, which have no id and are ``INFO``."""

DriftSeverity = Literal["info", "low", "medium", "high", "critical"]
DRIFT_SEVERITIES: Final[tuple[DriftSeverity, ...]] = get_args(DriftSeverity)
"""How grave a difference is that the watch tells of, the least grave first: see ``agent.workers.watch.row``."""

DriftKind = Literal[
    "open_forbidden",
    "other_mac",
    "open_undeclared",
    "host_down",
    "declared_closed",
    "service_differs",
    "listening_unreachable",
    "version_changed",
    "seen_not_scanned",
    "seen_unreachable",
]
DRIFT_KINDS: Final[tuple[DriftKind, ...]] = get_args(DriftKind)
"""What differs."""
