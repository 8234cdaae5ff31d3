"""What is written down, what is taken out of it before, and why an experiment can stop."""

import json
import os
import re
import time

SHORTEST_WORD = 4               # shorter names are not looked for in binary messages: they would be found everywhere


class Refused(Exception):
    """The server said no, in its own words."""


class Disorder(Exception):
    """The server said something that does not belong here, or is not the server that was expected."""


class Closed(Exception):
    """The connection ended."""


class Silence(Exception):
    """Nothing came in time."""


STOPS = (Refused, Disorder, Closed, Silence, OSError)


class Redactor:
    """Takes out what the file must not contain. Secrets are refused as well when the file is written: they cannot slip through."""

    PATTERNS = [(re.compile(pattern), label) for pattern, label in (
        (r"/vmfs/\S+(?: \S+)*?\.vmdk|/vmfs/\S+", "<file>"),
        (r"\[[^\]\n]{1,80}\] ?[^\n]*?\.vmdk", "<file>"),
        (r"\b[0-9a-fA-F]{2}(?:[: -][0-9a-fA-F]{2}){7,}\b", "<bytes>"),
        (r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b", "<uuid>"),
        # Numbers of four parts below 10 are versions.
        (r"(?<![\d.])[1-9]\d{1,2}(?:\.\d{1,3}){3}(?![\d.])", "<address>"),
        (r"(?<![\w:])(?:[0-9a-fA-F]{1,4}:{1,2}){3,7}[0-9a-fA-F]{1,4}(?![\w:])", "<address>"),
    )]

    def __init__(self):
        self.names, self.secrets = {}, set()

    def hide(self, label, value):
        """From here on `value` shows as <label> in texts, and as x in binary messages."""
        if value:
            self.names[value] = label

    def secret(self, label, value):
        """Hides the value, and makes `check` fail should it appear all the same."""
        self.hide(label, value)
        self.secrets.add(value)

    def _ordered(self):
        return sorted(self.names, key=len, reverse=True)

    def text(self, text):
        """A text without names; file names and numbers that identify something go even where nobody announced them."""
        for name in self._ordered():
            edges = (r"(?<!\w)", r"(?!\w)") if len(name) < SHORTEST_WORD else ("", "")
            text = re.sub(edges[0] + re.escape(name) + edges[1], f"<{self.names[name]}>", text, flags=re.IGNORECASE)
        for pattern, label in self.PATTERNS:
            text = pattern.sub(label, text)
        return text

    def binary(self, data):
        """A message of the same length without names."""
        for name in self._ordered():
            word = name.encode()
            if len(word) >= SHORTEST_WORD:
                data = data.replace(word, b"x" * len(word))
        text = data.decode("latin-1")
        for pattern, _ in self.PATTERNS:
            text = pattern.sub(lambda found: "x" * len(found.group()), text)
        return text.encode("latin-1")

    def check(self, text):
        """Fails if a secret is in what is about to be written."""
        for secret in self.secrets:
            if len(secret) >= SHORTEST_WORD and (secret in text or secret.encode().hex() in text):
                raise RuntimeError("a secret is in the record; nothing was written")


class Record:
    """The file: facts about the server, and one entry for each experiment with its result and its messages."""

    def __init__(self, path, redactor):
        self.path, self.redactor = path, redactor
        self.began = time.monotonic()
        self.content = {"format": 1, "server": {}, "experiments": []}
        self.messages = []

    def begin(self, name, question):
        """The messages that follow belong to this experiment."""
        self.began, self.messages = time.monotonic(), []
        entry = {"name": name, "question": question, "result": None, "stopped": None, "messages": self.messages}
        self.content["experiments"].append(entry)
        return entry

    def message(self, sender, stage, kind, data=None, **facts):
        """One message. `data` is shown in hex without the zeros at its end; texts among the facts are stripped of names."""
        entry = {"at": round(time.monotonic() - self.began, 4), "from": sender, "stage": stage, "kind": kind}
        if data is not None:
            entry.update(size=len(data), hex=self.redactor.binary(data).rstrip(b"\0").hex())
        entry.update({key: self.clean(value) for key, value in facts.items() if value is not None})
        self.messages.append(entry)

    def clean(self, value):
        """The same with every text in it stripped of names."""
        if isinstance(value, str):
            return self.redactor.text(value)
        if isinstance(value, dict):
            return {key: self.clean(item) for key, item in value.items()}
        return [self.clean(item) for item in value] if isinstance(value, (list, tuple)) else value

    def save(self):
        """Written after every experiment, so that an interrupted run leaves what it had; for nobody but the user to read."""
        text = json.dumps(self.content, indent=1)
        self.redactor.check(text)
        part = self.path + ".part"
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text + "\n")
        os.replace(part, self.path)
