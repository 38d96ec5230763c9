"""
A Hub on loopback: as much of the protocol of huggingface.co as `huggingface_hub` speaks to publish and to load.

It keeps everything in memory: users and their tokens, repositories of models and data sets with their commits, and the
store of large files behind git LFS. Xet is not offered: set `HF_HUB_DISABLE_XET=1`. Downloads of large files are
redirected to another host name, as to a CDN, where no token is to be sent. Faults can be scripted, and every request is
written down.
"""

import base64
import contextlib
import datetime
import fnmatch
import hashlib
import json
import re
import socket
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

GIT_ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
WRITING_ROLES = ("admin", "write", "contributor")
FORBIDDEN = "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request"


@dataclass
class User:
    name: str
    organisations: dict[str, str] = field(default_factory=dict)  # name -> role


@dataclass
class Token:
    user: User
    role: str  # read, write or fineGrained
    namespaces: tuple[str, ...] = ()  # that a fine-grained one may write to


@dataclass
class File:
    """A file of a commit; a large one is kept by its SHA-256 in the LFS store."""

    content: bytes
    large: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def pointer(self) -> bytes:
        lines = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        return lines.encode()

    @property
    def blob_id(self) -> str:
        content = self.pointer if self.large else self.content
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.large else self.blob_id


@dataclass
class Commit:
    oid: str
    title: str
    files: dict[str, File]
    parent: str | None = None


@dataclass
class Repository:
    name: str
    kind: str = "model"
    private: bool = False
    commits: list[Commit] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, title: str, files: dict[str, File]) -> Commit:
        parent = self.branches.get(branch)
        oid = hashlib.sha1(f"{self.kind} {self.name} {len(self.commits)} {parent} {title}".encode()).hexdigest()
        self.commits.append(Commit(oid, title, files, parent))
        self.branches[branch] = oid
        return self.commits[-1]

    def at(self, revision: str) -> Commit | None:
        oid = self.branches.get(revision, revision)
        return next((commit for commit in self.commits if commit.oid == oid), None)

    @property
    def files(self) -> dict[str, bytes]:
        """Name -> content, of the main branch."""
        return {name: file.content for name, file in self.at("main").files.items()}


@dataclass
class Fault:
    """What goes wrong with the next requests of a route."""

    kind: str  # status, cut, cut answer, die
    times: int = 1
    status: int = 500
    after: int = 0  # bytes of the body that are read before the connection is cut


class Refused(Exception):
    def __init__(self, status: int, message: str, code: str | None = None):
        self.status, self.message, self.code = status, message, code


class Hub:
    """The server; `with Hub() as hub:` runs it at `hub.url`."""

    def __init__(self):
        self.tokens: dict[str, Token] = {}
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.store: dict[str, bytes] = {}  # SHA-256 -> content of a large file
        self.requests: list[tuple[str, str]] = []  # route, path
        self.tokens_seen_elsewhere: list[str] = []  # authorisations that were sent to the CDN
        self.faults: dict[str, list[Fault]] = {}
        self.lock = threading.RLock()
        self.dead = False
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> "Hub":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self) -> None:
        """Listens at a free port, which is another at each start."""
        self.dead = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        self.dead = True
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def cdn(self) -> str:
        return f"http://localhost:{self.port}"

    # ------------------------------------------------------------------------------------------ what a test arranges

    def add_user(self, name: str, token: str, role: str = "write", namespaces=(), **organisations: str) -> User:
        user = User(name, organisations)
        self.tokens[token] = Token(user, role, tuple(namespaces))
        return user

    def add_repository(self, name: str, files: dict[str, bytes] | None = None, kind="model", private=False):
        repository = Repository(name, kind, private)
        given = {path: File(content) for path, content in (files or {}).items()}
        repository.commit("main", "initial commit", {".gitattributes": File(GIT_ATTRIBUTES), **given})
        self.repositories[kind, name] = repository
        return repository

    def fail(self, route: str, status: int = 500, times: int = 1) -> None:
        """The next requests of a route are answered by a status."""
        self.faults.setdefault(route, []).append(Fault("status", times, status))

    def cut(self, route: str, after: int, times: int = 1) -> None:
        """The connections of the next requests of a route end after so many bytes of their bodies."""
        self.faults.setdefault(route, []).append(Fault("cut", times, after=after))

    def cut_answer(self, route: str, times: int = 1) -> None:
        """The next requests of a route are carried out, and never answered."""
        self.faults.setdefault(route, []).append(Fault("cut answer", times))

    def die_at(self, route: str) -> None:
        """The next request of a route is cut, and then nobody listens any more."""
        self.faults.setdefault(route, []).append(Fault("die"))

    def count(self, route: str) -> int:
        return sum(1 for name, _ in self.requests if name == route)

    def repository(self, name: str, kind: str = "model") -> Repository:
        return self.repositories[kind, name]

    # ------------------------------------------------------------------------------------------------------- rights

    def who(self, token: str | None) -> Token | None:
        if token is None:
            return None
        if token not in self.tokens:
            raise Refused(401, "Invalid credentials in Authorization header")
        return self.tokens[token]

    def may_write(self, who: Token | None, namespace: str) -> bool:
        if who is None or who.role == "read":
            return False
        if who.role == "fineGrained" and namespace not in who.namespaces:
            return False
        return namespace == who.user.name or who.user.organisations.get(namespace) in WRITING_ROLES

    def may_read(self, who: Token | None, repository: Repository) -> bool:
        namespace = repository.name.split("/")[0]
        member = who is not None and (namespace == who.user.name or namespace in who.user.organisations)
        return member or not repository.private

    def find(self, kind: str, name: str, who: Token | None, *, to_write: bool = False) -> Repository:
        repository = self.repositories.get((kind, name))
        if repository is None or not self.may_read(who, repository):
            if who is None:
                raise Refused(401, "Invalid username or password.")
            raise Refused(404, "Repository not found", "RepoNotFound")
        if to_write and not self.may_write(who, name.split("/")[0]):
            raise Refused(403, FORBIDDEN)
        return repository

    def next_fault(self, route: str) -> Fault | None:
        with self.lock:
            waiting = self.faults.get(route, [])
            if not waiting:
                return None
            waiting[0].times -= 1
            return waiting[0] if waiting[0].times > 0 else waiting.pop(0)


REPOSITORY = r"(?P<name>[^/]+/[^/]+)"
API = rf"/api/(?P<kind>model|dataset)s/{REPOSITORY}"
GIT = rf"/(?P<prefix>datasets/)?{REPOSITORY}"
ROUTES = [
    ("GET", "whoami", r"/api/whoami-v2"),
    ("POST", "create", r"/api/repos/create"),
    ("POST", "validate", r"/api/validate-yaml"),
    ("POST", "preupload", rf"{API}/preupload/(?P<revision>[^/]+)"),
    ("POST", "commit", rf"{API}/commit/(?P<revision>[^/]+)"),
    ("POST", "branch", rf"{API}/branch/(?P<revision>[^/]+)"),
    ("POST", "paths", rf"{API}/paths-info/(?P<revision>[^/]+)"),
    ("GET", "tree", rf"{API}/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?"),
    ("GET", "refs", rf"{API}/refs"),
    ("GET", "info", rf"{API}(?:/revision/(?P<revision>[^/]+))?"),
    ("POST", "batch", rf"{GIT}\.git/info/lfs/objects/batch"),
    ("POST", "verify", r"/lfs/verify"),
    ("PUT", "upload", r"/lfs/upload/(?P<oid>[0-9a-f]{64})"),
    ("GET", "download", r"/lfs/download/(?P<oid>[0-9a-f]{64})"),
    ("GET", "resolve", rf"{GIT}/resolve/(?P<revision>[^/]+)/(?P<path>.+)"),
]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_) -> None:
        """The requests are in `Hub.requests`."""

    def do_GET(self) -> None:
        self._dispatch("GET")

    def do_HEAD(self) -> None:
        self._dispatch("GET")

    def do_POST(self) -> None:
        self._dispatch("POST")

    def do_PUT(self) -> None:
        self._dispatch("PUT")

    def _dispatch(self, method: str) -> None:
        if self.hub.dead:
            return self._hang_up()
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        matches = ((route, re.fullmatch(pattern, url.path)) for wanted, route, pattern in ROUTES if wanted == method)
        route, match = next(((route, match) for route, match in matches if match), (None, None))
        if match is None:
            self._read_body()
            return self._answer({"error": f"no such route: {method} {url.path}"}, 404)
        found = {name: unquote(value) for name, value in match.groupdict().items() if value is not None}
        found["kind"] = found.get("kind") or ("dataset" if found.pop("prefix", None) else "model")
        with self.hub.lock:
            self.hub.requests.append((route, url.path))
        fault = self.hub.next_fault(route)
        if fault is not None and fault.kind in ("cut", "die"):
            self.rfile.read(min(fault.after, int(self.headers.get("Content-Length") or 0)))
            if fault.kind == "die":
                self.hub.dead = True
                threading.Thread(target=self.hub.stop).start()
            return self._hang_up()
        self.body = self._read_body()
        if fault is not None and fault.kind == "status":
            return self._answer({"error": f"status {fault.status} on demand"}, fault.status)
        try:
            with self.hub.lock:
                answer = getattr(self, f"_{route}")(**found)
        except Refused as refused:
            headers = {"X-Error-Message": refused.message}
            if refused.code:
                headers["X-Error-Code"] = refused.code
            return self._answer({"error": refused.message}, refused.status, headers)
        if fault is not None:  # cut answer
            return self._hang_up()
        if answer is not None:
            self._answer(answer)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _hang_up(self) -> None:
        """Resets the connection."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, content, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    @property
    def _token(self) -> Token | None:
        authorisation = self.headers.get("Authorization")
        return self.hub.who(authorisation.removeprefix("Bearer ") if authorisation else None)

    def _find(self, kind: str, name: str, revision: str | None = None, to_write: bool = False):
        repository = self.hub.find(kind, name, self._token, to_write=to_write)
        commit = repository.at(revision or "main")
        if commit is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return repository, commit

    # ----------------------------------------------------------------------------------------------- users and names

    def _whoami(self, kind: str):
        if (who := self._token) is None:
            raise Refused(401, "Invalid username or password.")
        return {
            "type": "user",
            "id": "0",
            "name": who.user.name,
            "fullname": who.user.name,
            "isPro": False,
            "orgs": [
                {"type": "org", "id": name, "name": name, "fullname": name, "roleInOrg": role}
                for name, role in who.user.organisations.items()
            ],
            "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": who.role}},
        }

    def _create(self, kind: str):
        asked = json.loads(self.body)
        if (who := self._token) is None:
            raise Refused(401, "Invalid username or password.")
        namespace, kind = asked.get("organization") or who.user.name, asked.get("type") or "model"
        name = f"{namespace}/{asked['name']}"
        if not self.hub.may_write(who, namespace):
            raise Refused(403, f'You don\'t have the rights to create a {kind} under the namespace "{namespace}"')
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}", asked["name"]):
            raise Refused(400, f"Invalid repository name: {asked['name']}")
        url = f"{self.hub.url}/{'datasets/' if kind == 'dataset' else ''}{name}"
        if (kind, name) in self.hub.repositories:
            return self._answer({"error": "You already created this repo", "url": url}, 409)
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.hub.add_repository(name, kind=kind, private=private)
        return {"url": url, "name": name, "id": "0"}

    def _validate(self, kind: str):
        content = json.loads(self.body)["content"]
        block = re.match(r"---\s*\n(.*?)\n---\s*(?:\n|$)", content, re.DOTALL)
        if block is None:
            return {"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]}
        try:
            metadata = yaml.safe_load(block[1])
        except yaml.YAMLError as error:
            return self._answer({"errors": [{"message": f"invalid YAML: {error}"}], "warnings": []}, 400)
        if not isinstance(metadata, dict):
            return self._answer({"errors": [{"message": "metadata must be a mapping"}], "warnings": []}, 400)
        return {"errors": [], "warnings": []}

    # --------------------------------------------------------------------------------------------------- publishing

    def _preupload(self, kind: str, name: str, revision: str):
        _, commit = self._find(kind, name, revision, to_write="create_pr" not in self.query)
        ignored = commit.files[".gitignore"].content.decode().split() if ".gitignore" in commit.files else []
        answers = []
        for asked in json.loads(self.body)["files"]:
            path, there = asked["path"], commit.files.get(asked["path"])
            answers.append(
                {
                    "path": path,
                    "uploadMode": "lfs" if _is_large(path, base64.b64decode(asked["sample"])) else "regular",
                    "shouldIgnore": any(fnmatch.fnmatch(path, pattern) for pattern in ignored),
                    **({"oid": there.etag} if there else {}),
                }
            )
        return {"files": answers}

    def _batch(self, kind: str, name: str):
        self._find(kind, name, to_write=True)
        objects = []
        for asked in json.loads(self.body)["objects"]:
            entry = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.store:
                entry["actions"] = {
                    "upload": {"href": f"{self.hub.cdn}/lfs/upload/{asked['oid']}?signature=1"},
                    "verify": {"href": f"{self.hub.url}/lfs/verify"},
                }
            objects.append(entry)
        return {"transfer": "basic", "objects": objects}

    def _upload(self, kind: str, oid: str):
        self._note_token_elsewhere()
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refused(400, "the content has another SHA-256")
        self.hub.store[oid] = self.body
        return b""

    def _verify(self, kind: str):
        asked = json.loads(self.body)
        if self._token is None:
            raise Refused(401, "Invalid username or password.")
        if len(self.hub.store.get(asked["oid"], b"")) != asked["size"]:
            raise Refused(404, "no such object")
        return {}

    def _commit(self, kind: str, name: str, revision: str):
        repository, parent = self._find(kind, name, revision, to_write=True)
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, parent.oid):
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        files = dict(parent.files)
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = File(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.store:
                    raise Refused(400, "LFS pointer pointed to a file that does not exist")
                files[value["path"]] = File(self.hub.store[value["oid"]], large=True)
            elif line["key"] == "deletedFile" and files.pop(value["path"], None) is None:
                raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
        commit = repository.commit(revision, header["summary"], files)
        return {
            "success": True,
            "commitOid": commit.oid,
            "commitUrl": f"{self.hub.url}/{name}/commit/{commit.oid}",
            "pullRequestUrl": None,
        }

    def _branch(self, kind: str, name: str, revision: str):
        repository, commit = self._find(kind, name, to_write=True)
        if revision in repository.branches:
            raise Refused(409, "Reference already exists")
        repository.branches[revision] = commit.oid
        return {}

    # ------------------------------------------------------------------------------------------------------ reading

    def _info(self, kind: str, name: str, revision: str | None = None):
        repository, commit = self._find(kind, name, revision)
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        return {
            "_id": "0",
            "id": name,
            "modelId": name,
            "author": name.split("/")[0],
            "sha": commit.oid,
            "createdAt": now,
            "lastModified": now,
            "private": repository.private,
            "disabled": False,
            "gated": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": [{"rfilename": path} for path in sorted(commit.files)],
        }

    def _tree(self, kind: str, name: str, revision: str, path: str = ""):
        _, commit = self._find(kind, name, revision)
        below = f"{path.rstrip('/')}/" if path else ""
        files = {name: file for name, file in commit.files.items() if name.startswith(below)}
        if path and not files:
            raise Refused(404, f"{path} does not exist", "EntryNotFound")
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        folders = {
            below + "/".join(name.removeprefix(below).split("/")[:depth])
            for name in files
            for depth in range(1, name.removeprefix(below).count("/") + 1)
        }
        shown = [name for name in files if recursive or "/" not in name.removeprefix(below)]
        return [
            {"type": "directory", "oid": hashlib.sha1(name.encode()).hexdigest(), "size": 0, "path": name}
            for name in sorted(folders)
            if recursive or "/" not in name.removeprefix(below)
        ] + [_entry(name, files[name]) for name in sorted(shown)]

    def _paths(self, kind: str, name: str, revision: str):
        _, commit = self._find(kind, name, revision)
        form = parse_qs(self.body.decode()) if not self.body.startswith(b"{") else json.loads(self.body)
        return [_entry(path, commit.files[path]) for path in form.get("paths", []) if path in commit.files]

    def _refs(self, kind: str, name: str):
        repository, _ = self._find(kind, name)
        branches = [
            {"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": oid}
            for branch, oid in repository.branches.items()
        ]
        return {"branches": branches, "converts": [], "tags": []}

    def _resolve(self, kind: str, name: str, revision: str, path: str):
        _, commit = self._find(kind, name, revision)
        headers = {"X-Repo-Commit": commit.oid}
        if (file := commit.files.get(path)) is None:
            headers |= {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            return self._answer({"error": "Entry not found"}, 404, headers)
        if not file.large:
            return self._send_ranged(file.content, {**headers, "ETag": f'"{file.blob_id}"'})
        headers |= {
            "X-Linked-Size": str(len(file.content)),
            "X-Linked-ETag": f'"{file.sha256}"',
            "Location": f"{self.hub.cdn}/lfs/download/{file.sha256}?signature=1",
        }
        return self._answer(b"", 302, headers)

    def _download(self, kind: str, oid: str):
        self._note_token_elsewhere()
        if oid not in self.hub.store:
            raise Refused(404, "no such object")
        return self._send_ranged(self.hub.store[oid], {"ETag": f'"{oid}"'})

    def _note_token_elsewhere(self) -> None:
        if authorisation := self.headers.get("Authorization"):
            self.hub.tokens_seen_elsewhere.append(authorisation)

    def _send_ranged(self, content: bytes, headers: dict[str, str]) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return self._answer(content, 200, {**headers, "Accept-Ranges": "bytes"})
        first, last = int(asked[1]), int(asked[2] or len(content) - 1)
        if first >= len(content):
            return self._answer(b"", 416, {**headers, "Content-Range": f"bytes */{len(content)}"})
        headers |= {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
        return self._answer(content[first : last + 1], 206, headers)


def _is_large(path: str, sample: bytes) -> bool:
    """As the Hub decides for a small file: weights and what is no text go to the LFS store."""
    if path.endswith((".safetensors", ".parquet")):
        return True
    try:
        sample[:480].decode()
    except UnicodeDecodeError as error:
        return error.start < len(sample[:480]) - 4  # not a character that the sample cut
    return b"\0" in sample


def _entry(path: str, file: File) -> dict:
    entry = {"type": "file", "oid": file.blob_id, "size": len(file.content), "path": path}
    if file.large:
        entry["lfs"] = {"oid": file.sha256, "size": len(file.content), "pointerSize": len(file.pointer)}
    return entry
