"""What a kubelet says to containerd, as far as a test needs it.

    cri.py SOCKET run HANDLER IMAGE CGROUP   a pod, and in it a container with 128 MiB and half a CPU; prints both ids
    cri.py SOCKET exec CONTAINER CMD...      prints what the command prints, and ends as it ends
    cri.py SOCKET limit CONTAINER BYTES      another limit of memory
    cri.py SOCKET end POD                    ends and removes the pod with all that is in it

Messages are written by the numbers that their fields have in the service runtime.v1, so nothing has to be generated.
"""

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


class Cri:
    def __init__(self, socket):
        self.channel = grpc.insecure_channel(f"unix://{socket}")

    def call(self, method, message, service=SERVICE):
        ask = self.channel.unary_unary(service + method, encode, decode)
        return ask(message, timeout=PATIENCE)

    def run(self, handler, image, cgroup):
        end = time.monotonic() + PATIENCE
        # containerd hears of an image a little after it has been imported.
        while 1 not in self.call("ImageStatus", {1: {1: image}}, IMAGES):
            if time.monotonic() > end:
                raise TimeoutError(f"containerd does not know {image}")
        name = uuid.uuid4().hex
        namespaces = {1: NODE, 2: CONTAINER, 3: POD}
        config = {
            1: {1: name, 2: name, 3: "default"},
            8: {1: cgroup, 2: {1: namespaces}},
        }
        pod = self.call("RunPodSandbox", {1: config, 2: handler})[1].decode()
        resources = {1: 100000, 2: 50000, 4: 128 << 20}
        container = {
            1: {1: "one"},
            2: {1: image},
            3: ["sleep", "1000000"],
            15: {1: resources, 2: {3: namespaces}},
        }
        made = self.call("CreateContainer", {1: pod, 2: container, 3: config})
        made = made[1].decode()
        self.call("StartContainer", {1: made})
        print(pod, made)

    def exec(self, container, *command):
        answer = self.call("ExecSync", {1: container, 2: list(command), 3: PATIENCE})
        sys.stdout.write(answer.get(1, b"").decode())
        sys.stderr.write(answer.get(2, b"").decode())
        sys.exit(answer.get(3, 0))

    def limit(self, container, size):
        self.call("UpdateContainerResources", {1: container, 2: {4: int(size)}})

    def end(self, pod):
        self.call("StopPodSandbox", {1: pod})
        self.call("RemovePodSandbox", {1: pod})


if __name__ == "__main__":
    getattr(Cri(sys.argv[1]), sys.argv[2])(*sys.argv[3:])
