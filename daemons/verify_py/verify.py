#!/usr/bin/env python3
"""Checks Bailiwick evidence and C2SP proofs: a second reader, written from docs/format.md, sharing no code with the first.

Promises: reads the files it is given and nothing else; says for each whether it holds, and if not, why.
Never does: talks to a network or a node, writes anything. Needs Python 3.9 and the package `cryptography`.

    verify.py FILE... [--key KEY] [--witness KEY]... [--remembered CHECKPOINT]

Exit code 0: all hold; 5: one does not; 2: wrong command line.
"""

import argparse
import base64
import binascii
import bisect
import hashlib
import re
import sys
import unicodedata

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

EVIDENCE = "bailiwick evidence v1"
PROOF = "c2sp.org/tlog-proof@v1"

EVIDENCE_BYTES_MAX = 64 * 1024 * 1024
PROOF_BYTES_MAX = 224 * 1024
NOTE_BYTES_MAX = 128 * 1024
SIGNATURES_MAX = 32
KEY_NAME_BYTES_MAX = 255
WITNESSES_MAX = 31
ENTRIES_MAX = 65536
PATH_HASHES_MAX = 64
HEADER_BYTES = 88
LEAF_BYTES_MAX = 65535

TYPE_LOG = 1
TYPE_WITNESS = 4

# Encodings of the points of order 1, 2, 4 and 8, with the sign bit cleared: with such a key, or such an R, one signature
# would hold for many messages.
SMALL_ORDER = {
    bytes.fromhex(text)
    for text in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
}


class Refused(Exception):
    """The file does not hold; the text says why."""


def refuse_unless(holds, why):
    if not holds:
        raise Refused(why)


# Text forms ----------------------------------------------------------------------------------------------------------


def number(text, what):
    refuse_unless(len(text) <= 19 and re.fullmatch("0|[1-9][0-9]*", text), f"{what} is no number in decimal: {text[:40]!r}")
    value = int(text)
    refuse_unless(value < 1 << 63, f"{what} is too large: {text}")
    return value


def decode(text, what):
    """Canonical base64 only."""
    try:
        value = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError):
        raise Refused(f"{what} is no base64") from None
    refuse_unless(base64.b64encode(value).decode() == text, f"{what} is not the canonical base64")
    return value


def decode_hash(text, what):
    value = decode(text, what)
    refuse_unless(len(value) == 32, f"{what} has {len(value)} bytes, not 32")
    return value


def check_key_name(name):
    refuse_unless(0 < len(name.encode()) <= KEY_NAME_BYTES_MAX, f"a key's name has 1 to {KEY_NAME_BYTES_MAX} bytes")
    for letter in name:
        bad = letter == "+" or letter.isspace() or unicodedata.category(letter) == "Cc"
        refuse_unless(not bad, f"a key's name has a letter that is not allowed: {name!r}")


class Key:
    """A public key: NAME+ID+BASE64, the base64 of a type and 32 bytes."""

    def __init__(self, text, expected_type):
        parts = text.split("+", 2)
        refuse_unless(len(parts) == 3, f"a key is written NAME+ID+BASE64, not {text[:80]!r}")
        self.text = text
        self.name = parts[0]
        check_key_name(self.name)
        material = decode(parts[2], "a key")
        refuse_unless(len(material) == 33, "a key has a type and 32 bytes")
        self.type, self.public = material[0], material[1:]
        refuse_unless(self.type == expected_type, f"the key {self.name} is of type {self.type}, not {expected_type}")
        self.id = hashlib.sha256(self.name.encode() + b"\n" + material).digest()[:4]
        refuse_unless(parts[1] == self.id.hex(), f"the id of the key {self.name} does not follow from it")

    def verifies(self, message, signature):
        if is_small_order(self.public) or is_small_order(signature[:32]):
            return False
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


def is_small_order(point):
    return point[:31] + bytes([point[31] & 0x7F]) in SMALL_ORDER


# Signed notes and checkpoints ----------------------------------------------------------------------------------------


class Checkpoint:
    """A signed note whose text is origin, size and root; nothing in it is believed until `verify`."""

    def __init__(self, note):
        refuse_unless(len(note.encode()) <= NOTE_BYTES_MAX, f"a note has at most {NOTE_BYTES_MAX} bytes")
        refuse_unless(not re.search("[\x00-\x09\x0b-\x1f]", note), "the note has control characters")
        text, divider, lines = note.rpartition("\n\n")
        refuse_unless(divider and lines.endswith("\n"), "a note is text, an empty line and signature lines")
        self.text = text + "\n"
        self.signatures = [self.signature(line) for line in lines[:-1].split("\n")]
        refuse_unless(len(self.signatures) <= SIGNATURES_MAX, f"a note has at most {SIGNATURES_MAX} signatures")
        rows = text.split("\n")
        refuse_unless(len(rows) >= 3 and all(rows), "a checkpoint is origin, size and root, without empty lines")
        self.origin = rows[0]
        self.size = number(rows[1], "the checkpoint's size")
        self.root = decode_hash(rows[2], "the checkpoint's root")

    @staticmethod
    def signature(line):
        refuse_unless(line.startswith("— "), f"a signature line begins with a dash: {line[:80]!r}")
        name, space, text = line[2:].partition(" ")
        refuse_unless(space, "a signature line is dash, name and base64")
        check_key_name(name)
        value = decode(text, "a signature")
        refuse_unless(len(value) > 4, "a signature has a key id and more")
        return name, value[:4], value[4:]

    def verify(self, key):
        """Checks every line of this key and needs one; gives the latest time of a witness."""
        latest = None
        for name, key_id, signature in self.signatures:
            if name != key.name or key_id != key.id:
                continue
            wrong = f"the signature of {key.name} does not match the checkpoint"
            if key.type == TYPE_WITNESS:
                refuse_unless(len(signature) == 72, wrong)
                time = int.from_bytes(signature[:8], "big")
                refuse_unless(time < 1 << 63, wrong)
                message = f"cosignature/v1\ntime {time}\n{self.text}".encode()
                signature = signature[8:]
            else:
                refuse_unless(len(signature) == 64, wrong)
                time, message = 0, self.text.encode()
            refuse_unless(key.verifies(message, signature), wrong)
            latest = time if latest is None else max(latest, time)
        refuse_unless(latest is not None, f"no signature of {key.name} with the given key")
        return latest

    def verify_log(self, key):
        refuse_unless(self.origin == key.name, f"the checkpoint is of the log {self.origin!r}, the key of {key.name}")
        self.verify(key)


# The tree ------------------------------------------------------------------------------------------------------------


def leaf_hash(leaf):
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


def split(size):
    """The largest power of two below size."""
    return 1 << ((size - 1).bit_length() - 1)


def root_from_inclusion(leaf, index, size, proof):
    """RFC 6962 section 2.1.1: the root to which a leaf and its path lead."""
    if size == 1:
        refuse_unless(not proof, "the proof has hashes too many")
        return leaf
    refuse_unless(proof, "the proof has hashes too few")
    middle = split(size)
    if index < middle:
        return node_hash(root_from_inclusion(leaf, index, middle, proof[:-1]), proof[-1])
    return node_hash(proof[-1], root_from_inclusion(leaf, index - middle, size - middle, proof[:-1]))


def roots_from_consistency(old, size, proof, old_root, whole=True):
    """RFC 6962 section 2.1.2: the roots of the older and the newer tree to which a proof leads."""
    if old == size and whole:
        refuse_unless(not proof, "the consistency proof has hashes too many")
        return old_root, old_root
    refuse_unless(proof, "the consistency proof has hashes too few")
    if old == size:
        refuse_unless(len(proof) == 1, "the consistency proof has hashes too many")
        return proof[0], proof[0]
    middle = split(size)
    if old <= middle:
        before, now = roots_from_consistency(old, middle, proof[:-1], old_root, whole)
        return before, node_hash(now, proof[-1])
    before, now = roots_from_consistency(old - middle, size - middle, proof[:-1], old_root, False)
    return node_hash(proof[-1], before), node_hash(proof[-1], now)


def root_from_set(indices, leaves, size, proof):
    """The root to which several leaves and the hashes beside them lead."""
    hashes = iter(proof)

    def root(start, end, first, last):
        if first == last:
            found = next(hashes, None)
            refuse_unless(found is not None, "the set proof has hashes too few")
            return found
        if end - start == 1:
            return leaves[first]
        middle = start + split(end - start)
        divide = bisect.bisect_left(indices, middle, first, last)
        left = root(start, middle, first, divide)
        return node_hash(left, root(middle, end, divide, last))

    found = root(0, size, 0, len(indices))
    refuse_unless(next(hashes, None) is None, "the set proof has hashes too many")
    return found


# Files ---------------------------------------------------------------------------------------------------------------


class Evidence:
    def __init__(self, text):
        head, divider, note = text.partition("\n\n")
        refuse_unless(divider, "evidence is lines, an empty line and a checkpoint")
        self.lines = head.split("\n")
        self.at = 0
        refuse_unless(self.take_line() == EVIDENCE, "this is no evidence of version 1")
        logs = self.take("log", 1)
        refuse_unless(logs, self.unexpected())
        self.log = Key(logs[0], TYPE_LOG)
        self.witnesses = [Key(value, TYPE_WITNESS) for value in self.take("witness", WITNESSES_MAX)]
        self.old = None
        self.consistency = []
        for value in self.take("old", 1):
            size, space, root = value.partition(" ")
            refuse_unless(space, "an `old` line is size and root")
            self.old = number(size, "the older size"), decode_hash(root, "the older root")
            self.consistency = [decode_hash(value, "a consistency hash") for value in self.take("consistency", PATH_HASHES_MAX)]
        self.indices, self.leaves = [], []
        for value in self.take("entry", ENTRIES_MAX):
            index, space, leaf = value.partition(" ")
            refuse_unless(space, "an `entry` line is number and leaf")
            self.indices.append(number(index, "an entry's number"))
            self.leaves.append(decode(leaf, "an entry"))
        refuse_unless(self.indices, self.unexpected())
        hashes_max = PATH_HASHES_MAX * len(self.indices)
        self.tree = [decode_hash(value, "a tree hash") for value in self.take("tree", hashes_max)]
        refuse_unless(self.at == len(self.lines), self.unexpected())
        self.checkpoint = Checkpoint(note)

    def take_line(self):
        self.at += 1
        return self.lines[self.at - 1]

    def take(self, keyword, most):
        values = []
        while self.at < len(self.lines) and self.lines[self.at].startswith(keyword + " "):
            refuse_unless(len(values) < most, f"there are more than {most} lines `{keyword}`")
            values.append(self.take_line()[len(keyword) + 1 :])
        return values

    def unexpected(self):
        return f"line {self.at + 1} is not what the format has there"

    def verify(self, expected):
        if expected.key:
            refuse_unless(self.log.text == expected.key.text, "the evidence is of another log than the given key's")
        keys = [self.log.public] + [witness.public for witness in self.witnesses]
        refuse_unless(len(set(keys)) == len(keys), "a key stands twice")
        self.checkpoint.verify_log(self.log)
        for witness in self.witnesses + expected.witnesses:
            self.checkpoint.verify(witness)
        self.verify_entries()
        size, root = self.checkpoint.size, self.checkpoint.root
        refuse_unless(self.indices[-1] < size, "an entry is beyond the checkpoint")
        found = root_from_set(self.indices, [leaf_hash(leaf) for leaf in self.leaves], size, self.tree)
        refuse_unless(found == root, "the entries do not lead to the checkpoint's root")
        if self.old:
            old, old_root = self.old
            refuse_unless(0 < old <= size, "the older tree is empty or larger than the checkpoint's")
            roots = roots_from_consistency(old, size, self.consistency, old_root)
            refuse_unless(roots == (old_root, root), "the checkpoint does not contain the older tree")
        if expected.remembered:
            self.verify_remembered(expected.remembered)
        return f"{len(self.indices)} entries of a log of {size}"

    def verify_entries(self):
        before, time_before = -1, 0
        for index, leaf in zip(self.indices, self.leaves):
            refuse_unless(index > before, f"entry {index} is not behind entry {before}")
            refuse_unless(len(leaf) >= HEADER_BYTES, f"entry {index} is shorter than a header")
            refuse_unless(len(leaf) <= LEAF_BYTES_MAX, f"entry {index} is longer than an entry may be")
            sequence = int.from_bytes(leaf[0:8], "little")
            refuse_unless(sequence == index, f"entry {index} states that it is entry {sequence}")
            size = int.from_bytes(leaf[84:88], "little")
            refuse_unless(size == len(leaf) - HEADER_BYTES, f"entry {index} states another payload size")
            time = int.from_bytes(leaf[72:80], "little")
            refuse_unless(time >= time_before, f"the time of entry {index} goes back")
            before, time_before = index, time

    def verify_remembered(self, remembered):
        remembered.verify_log(self.log)
        size, root = self.checkpoint.size, self.checkpoint.root
        refuse_unless(remembered.size <= size, f"the log had {remembered.size} entries before, now {size}: it was cut back")
        if remembered.size == size:
            found = root
        else:
            shown = self.old and self.old[0] == remembered.size
            refuse_unless(shown, "nothing shows that the log still contains what is remembered")
            found = self.old[1]
        refuse_unless(found == remembered.root, "the log has another history than the one remembered")


def verify_proof(text, expected):
    refuse_unless(expected.key, "a proof holds no key: give the log's with --key")
    refuse_unless(not expected.remembered, "a proof cannot show what is remembered")
    refuse_unless(len(text.encode()) <= PROOF_BYTES_MAX, f"a proof has at most {PROOF_BYTES_MAX} bytes")
    head, divider, note = text.partition("\n\n")
    refuse_unless(divider, "a proof is lines, an empty line and a checkpoint")
    lines = head.split("\n")[1:]
    refuse_unless(lines and lines[0].startswith("extra "), "the proof does not hold its entry")
    leaf = decode(lines[0][6:], "the entry")
    refuse_unless(len(lines) > 1 and lines[1].startswith("index "), "the proof has no index")
    index = number(lines[1][6:], "the index")
    refuse_unless(len(lines) - 2 <= PATH_HASHES_MAX, f"a proof has at most {PATH_HASHES_MAX} hashes")
    proof = [decode_hash(line, "a proof's hash") for line in lines[2:]]
    checkpoint = Checkpoint(note)
    checkpoint.verify_log(expected.key)
    for witness in expected.witnesses:
        checkpoint.verify(witness)
    refuse_unless(index < checkpoint.size, "the entry is beyond the checkpoint")
    root = root_from_inclusion(leaf_hash(leaf), index, checkpoint.size, proof)
    refuse_unless(root == checkpoint.root, "the entry does not lead to the checkpoint's root")
    return f"entry {index} of a log of {checkpoint.size}"


class Expected:
    """What the reader knows from elsewhere."""

    def __init__(self, key=None, witnesses=(), remembered=None):
        self.key = Key(key, TYPE_LOG) if key else None
        self.witnesses = [Key(witness, TYPE_WITNESS) for witness in witnesses]
        self.remembered = Checkpoint(read(remembered)) if remembered else None


def read(path):
    with open(path, "rb") as file:
        content = file.read(EVIDENCE_BYTES_MAX + 1)
    refuse_unless(len(content) <= EVIDENCE_BYTES_MAX, f"evidence has at most {EVIDENCE_BYTES_MAX} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("this is no UTF-8 text") from None


def verify(path, expected):
    text = read(path)
    first = text.partition("\n")[0]
    if first == EVIDENCE:
        return Evidence(text).verify(expected)
    refuse_unless(first == PROOF, "this is neither evidence nor a proof")
    return verify_proof(text, expected)


def main():
    parser = argparse.ArgumentParser(description="Check Bailiwick evidence and C2SP proofs.")
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--key", help="the log's key as you know it from elsewhere")
    parser.add_argument("--witness", action="append", default=[], metavar="KEY", help="a witness that must have signed")
    parser.add_argument("--remembered", metavar="CHECKPOINT", help="a checkpoint of this log that you kept")
    arguments = parser.parse_args()
    try:
        expected = Expected(arguments.key, arguments.witness, arguments.remembered)
    except Refused as why:
        parser.error(str(why))
    code = 0
    for path in arguments.files:
        try:
            print(f"holds\t{path}\t{verify(path, expected)}")
        except Refused as why:
            print(f"refused\t{path}\t{why}")
            code = 5
    return code


if __name__ == "__main__":
    sys.exit(main())
