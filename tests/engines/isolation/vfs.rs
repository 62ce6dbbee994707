//! docker with its driver `vfs`: each container has a whole copy of its image, in a plain directory.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use serde_json::json;
use support::engines::CommandLine;

use super::docker_of;
use super::ids::first_id;
use crate::host::Host;
use crate::scene;

#[test]
fn privileged_containers_of_docker_without_overlays_have_mapped_files_too() {
    let scene = scene();
    let host = Host::new(&scene);
    let docker = docker_of(&host, &scene, "", |daemon| {
        daemon["storage-driver"] = json!("vfs")
    });
    let driver = docker.call(&["info", "--format", "{{.Driver}}"]).ok();
    assert_eq!(driver, "vfs\n");
    docker.run(&["--rm"], &["true"]).ok();
    let before = host.left(docker.cgroup());
    let dir = scene.dir().join("files");
    fs::create_dir(&dir).unwrap();
    let file = dir.join("in");
    fs::write(&file, "in\n").unwrap();
    chown(&file, Some(1000), Some(42)).unwrap();
    let volume = format!("--volume={}:/v", dir.display());
    let path = file.display().to_string();
    for runtime in ["runc", "eci"] {
        let option = format!("--runtime={runtime}");
        let isolated = runtime == "eci";
        docker
            .run(
                &["--detach", "--name=one", &volume, &option],
                &["sleep", "1000"],
            )
            .ok();
        let first = isolated.then(|| first_id(&docker, "one"));
        let exec = |script: &str| docker.call(&["exec", "one", "sh", "-c", script]).ok();
        exec("mkdir /srv; echo w:x:1234:1234::/:/bin/sh >>/etc/passwd; touch /made /v/made");
        exec("chown 33:34 /made /v/made");
        let user = docker.call(&["exec", "--user=w", "one", "id", "-u"]).ok();
        assert_eq!(user, "1234\n", "{runtime}");
        let stat = fs::metadata(dir.join("made")).unwrap();
        assert_eq!((stat.uid(), stat.gid()), (33, 34), "{runtime}");
        docker.call(&["cp", "--archive", &path, "one:/srv/"]).ok();
        docker.call(&["cp", &path, "one:/copied"]).ok();
        let owners = "stat -c '%n %u:%g' /srv/in /copied /made /v/in; cat /copied";
        let wanted = "/srv/in 1000:42\n/copied 1000:42\n/made 33:34\n/v/in 1000:42\nin\n";
        assert_eq!(exec(owners), wanted, "{runtime}");
        docker.call(&["restart", "--time=0", "one"]).ok();
        if isolated {
            assert_ne!(Some(first_id(&docker, "one")), first);
        }
        assert_eq!(exec(owners), wanted, "{runtime}");
        if !isolated {
            docker.call(&["rm", "--force", "one"]).ok();
        }
    }
    docker.call(&["commit", "one", "committed"]).ok();
    for runtime in ["eci", "runc"] {
        let runtime = format!("--runtime={runtime}");
        let stat = ["committed", "stat", "-c", "%u:%g", "/made", "/copied"];
        let run = [&["run", "--rm", &runtime], &stat[..]].concat();
        assert_eq!(docker.call(&run).ok(), "33:34\n1000:42\n", "{runtime}");
    }
    docker.call(&["rm", "--force", "one"]).ok();
    host.is_as(&before, docker.cgroup(), "vfs");
}
