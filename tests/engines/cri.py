"""What a kubelet says to containerd, as far as a test needs it.

    cri.py SOCKET run HANDLER IMAGE CGROUP   a pod, and in it a container with 128 MiB and half a CPU; prints both ids
    cri.py SOCKET pod HANDLER POD            a pod; prints its id
    cri.py SOCKET add ID POD IMAGE CONTAINER CMD...   a container in a pod; prints its id
    cri.py SOCKET exec CONTAINER CMD...      prints what the command prints, and ends as it ends
    cri.py SOCKET limit CONTAINER BYTES      another limit of memory
    cri.py SOCKET remove CONTAINER           ends and removes a container
    cri.py SOCKET end POD                    ends and removes the pod with all that is in it

POD is a JSON object: name, cgroup, network ("pod" or "node"), pid ("container" or "pod"), hostname,
privileged (if a container of it may be).
CONTAINER is one: name, attempt, user, privileged, readonly, mounts (a list of [HOST, PATH, READONLY]).

Messages are written by the numbers that their fields have in the service runtime.v1, so nothing has to be generated.
"""

import json
import os
import sys
import time
import uuid

import grpc

POD, CONTAINER, NODE = 0, 1, 2
SERVICE = "/runtime.v1.RuntimeService/"
IMAGES = "/runtime.v1.ImageService/"
PATIENCE = int(os.environ.get("PATIENCE", "20"))


def varint(number):
    """A number in groups of seven bits, the lowest first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def encode(message):
    """A message from field numbers to numbers, texts, messages, or lists of those."""
    out = b""
    for field, values in message.items():
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, int):
                out += varint(field << 3) + varint(value)
                continue
            data = encode(value) if isinstance(value, dict) else value.encode()
            out += varint(field << 3 | 2) + varint(len(data)) + data
    return out


def decode(data):
    """The fields of a message: numbers, and bytes for all else; of a list the last."""
    fields, at = {}, 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = number()
        if key & 7 == 0:
            fields[key >> 3] = number()
        elif key & 7 == 2:
            size = number()
            fields[key >> 3] = data[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {key & 7}")
    return fields


def namespaces_of(pod):
    """Where the processes of a pod find their network, and the processes of others."""
    network = NODE if pod["network"] == "node" else POD
    pid = POD if pod.get("pid") == "pod" else CONTAINER
    return {1: network, 2: pid, 3: POD}


def config_of(pod):
    security = {1: namespaces_of(pod), 6: int(pod.get("privileged", False))}
    return {
        1: {1: pod["name"], 2: pod["name"], 3: "default"},
        2: pod.get("hostname", ""),
        8: {1: pod["cgroup"], 2: security},
    }


class Cri:
    def __init__(self, socket):
        self.channel = grpc.insecure_channel(f"unix://{socket}")

    def call(self, method, message, service=SERVICE):
        ask = self.channel.unary_unary(service + method, encode, decode)
        return ask(message, timeout=PATIENCE)

    def find(self, image):
        """Waits until containerd has heard of an image, a little after it has been imported."""
        end = time.monotonic() + PATIENCE
        while 1 not in self.call("ImageStatus", {1: {1: image}}, IMAGES):
            if time.monotonic() > end:
                raise TimeoutError(f"containerd does not know {image}")

    def make_pod(self, handler, pod):
        return self.call("RunPodSandbox", {1: config_of(pod), 2: handler})[1].decode()

    def make(self, id, pod, image, container, command, resources):
        security = {
            2: int(container.get("privileged", False)),
            3: namespaces_of(pod),
            7: int(container.get("readonly", False)),
        }
        if "user" in container:
            security[5] = {1: container["user"]}
        mounts = container.get("mounts", [])
        mounts = [{1: path, 2: host, 3: int(ro)} for host, path, ro in mounts]
        config = {
            1: {1: container["name"], 2: container.get("attempt", 0)},
            2: {1: image},
            3: command,
            7: mounts,
            15: {1: resources, 2: security},
        }
        make = {1: id, 2: config, 3: config_of(pod)}
        made = self.call("CreateContainer", make)[1].decode()
        self.call("StartContainer", {1: made})
        return made

    def run(self, handler, image, cgroup):
        self.find(image)
        pod = {"name": uuid.uuid4().hex, "cgroup": cgroup, "network": "node"}
        id = self.make_pod(handler, pod)
        resources = {1: 100000, 2: 50000, 4: 128 << 20}
        command = ["sleep", "1000000"]
        print(id, self.make(id, pod, image, {"name": "one"}, command, resources))

    def pod(self, handler, pod):
        print(self.make_pod(handler, json.loads(pod)))

    def add(self, id, pod, image, container, *command):
        self.find(image)
        pod, container = json.loads(pod), json.loads(container)
        print(self.make(id, pod, image, container, list(command), {}))

    def exec(self, container, *command):
        answer = self.call("ExecSync", {1: container, 2: list(command), 3: PATIENCE})
        sys.stdout.write(answer.get(1, b"").decode())
        sys.stderr.write(answer.get(2, b"").decode())
        sys.exit(answer.get(3, 0))

    def limit(self, container, size):
        self.call("UpdateContainerResources", {1: container, 2: {4: int(size)}})

    def remove(self, container):
        self.call("StopContainer", {1: container, 2: 0})
        self.call("RemoveContainer", {1: container})

    def end(self, pod):
        self.call("StopPodSandbox", {1: pod})
        self.call("RemovePodSandbox", {1: pod})


if __name__ == "__main__":
    getattr(Cri(sys.argv[1]), sys.argv[2])(*sys.argv[3:])
