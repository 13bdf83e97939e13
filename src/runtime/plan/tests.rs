use super::*;
use crate::runtime::spec::{Namespace, Process, Root};

fn mount(destination: &str, kind: &str, options: &str) -> Mount {
    Mount {
        destination: destination.to_owned(),
        kind: kind.to_owned(),
        source: if kind == "bind" { format!("/srv{destination}") } else { kind.to_owned() },
        options: options.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect(),
    }
}

fn spec() -> Spec {
    let own = |kind| Namespace { kind, path: None };
    let mut spec = Spec {
        process: Process { terminal: true, ..Process::default() },
        root: Root { path: String::new(), readonly: true },
        hostname: "web".to_owned(),
        mounts: vec![
            mount("/proc", "proc", "nosuid,noexec,nodev"),
            mount("/dev", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
            mount("/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
            mount("/sys", "sysfs", "nosuid,noexec,nodev,ro"),
            mount("/sys/fs/cgroup", "cgroup", "nosuid,noexec,nodev,ro"),
            mount("/data", "bind", "rbind,rprivate,rro"),
        ],
        ..Spec::default()
    };
    spec.linux.namespaces =
        [NamespaceKind::Mount, NamespaceKind::Uts, NamespaceKind::Network].map(own).into();
    spec.linux.sysctl = [("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned())].into();
    spec.linux.masked_paths = vec!["/proc/kcore".to_owned()];
    spec.linux.readonly_paths = vec!["/proc/sys".to_owned()];
    spec
}

#[test]
fn a_container_is_these_steps_in_this_order() {
    let expected = "\
make / rslave
sethostname web
sysctl net.ipv4.ip_unprivileged_port_start=0
mount proc on /proc (nosuid,nodev,noexec)
mount tmpfs on /dev (nosuid,strictatime,mode=755,size=65536k)
mount devpts on /dev/pts (nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5)
mount sysfs on /sys (ro,nosuid,nodev,noexec)
mount cgroups on /sys/fs/cgroup (ro,nosuid,nodev,noexec)
bind /srv/data on /data (rbind,rro,rprivate)
mknod /dev/null c 1:3 666
mknod /dev/zero c 1:5 666
mknod /dev/full c 1:7 666
mknod /dev/random c 1:8 666
mknod /dev/urandom c 1:9 666
mknod /dev/tty c 5:0 666
symlink /dev/fd -> /proc/self/fd
symlink /dev/stdin -> /proc/self/fd/0
symlink /dev/stdout -> /proc/self/fd/1
symlink /dev/stderr -> /proc/self/fd/2
symlink /dev/ptmx -> pts/ptmx
symlink /dev/core -> /proc/kcore
open the console at /dev/console
mask /proc/kcore
make /proc/sys read-only
make / read-only
pivot_root
";
    let plan = plan(&spec()).unwrap();
    assert_eq!(plan.to_string(), expected);
    assert!(serde_json::to_string(&plan).unwrap().contains(r#""do":"mask","path":"/proc/kcore""#));
}

#[test]
fn a_read_only_dev_is_sealed_after_its_nodes() {
    let mut spec = spec();
    spec.mounts[1].options.push("ro".to_owned());
    let steps = plan(&spec).unwrap().steps;
    let at = |wanted: &dyn Fn(&Step) -> bool| steps.iter().position(wanted).unwrap();
    let seal = at(&|step| matches!(step, Step::ReadonlyMount { path } if path == Path::new("/dev")));
    assert!(seal > at(&|step| matches!(step, Step::Console { .. })));
}

#[test]
fn a_dev_from_the_host_gets_no_nodes() {
    let mut spec = spec();
    spec.mounts[1] = mount("/dev", "bind", "rbind");
    assert!(!plan(&spec).unwrap().steps.iter().any(|step| matches!(step, Step::Node { .. })));
}

#[test]
fn shared_propagation_is_given_to_the_new_root_too() {
    let mut spec = spec();
    spec.linux.rootfs_propagation = "rshared".to_owned();
    let steps = plan(&spec).unwrap().steps;
    assert_eq!(steps.last(), Some(&Step::PropagateRoot { propagation: Propagation::RShared }));
}

#[test]
fn what_cannot_be_meant_is_refused_by_name() {
    let refused = |change: &dyn Fn(&mut Spec)| {
        let mut spec = spec();
        change(&mut spec);
        plan(&spec).unwrap_err().to_string()
    };
    assert_eq!(
        refused(&|spec| spec.mounts.push(mount("data", "tmpfs", ""))),
        "mount on data: not an absolute path"
    );
    assert!(refused(&|spec| spec.mounts.push(mount("/..", "tmpfs", ""))).contains("container's root"));
    assert!(refused(&|spec| spec.mounts.push(mount("/a", "bind", "bind,size=1"))).contains("size=1"));
    assert!(refused(&|spec| spec.masked_path("etc")).contains("not an absolute path"));
    assert!(refused(&|spec| spec.sysctl("kernel.panic")).contains("not in a separate"));
    assert!(refused(&|spec| spec.sysctl("kernel.shmmax")).contains("shares that namespace"));
    assert!(refused(&|spec| spec.sysctl("net.//.//.x")).contains("not a parameter's name"));
    assert!(refused(&|spec| spec.linux.namespaces.clear()).contains("uts namespace"));
    let odd = Device { path: "/dev/x".into(), kind: "z".into(), ..Device::default() };
    assert!(refused(&|spec| spec.linux.devices.push(odd.clone())).contains("none of c, b, u, p"));
}

trait Change {
    fn masked_path(&mut self, path: &str);
    fn sysctl(&mut self, name: &str);
}

impl Change for Spec {
    fn masked_path(&mut self, path: &str) {
        self.linux.masked_paths.push(path.to_owned());
    }

    fn sysctl(&mut self, name: &str) {
        self.linux.sysctl.insert(name.to_owned(), "1".to_owned());
    }
}

#[test]
fn paths_cannot_climb_and_sysctl_names_keep_their_dots() {
    assert_eq!(inside("/a/./../../b//c/", "x").unwrap(), Path::new("/b/c"));
    assert_eq!(sysctl_path("net.ipv4.conf.eth0/1.x"), Path::new("net/ipv4/conf/eth0.1/x"));
}
