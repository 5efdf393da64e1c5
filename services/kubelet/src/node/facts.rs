//! What the machine is: read once from /proc, /sys and /etc; and how it is: read now and then.

use std::{
    fs,
    net::{IpAddr, UdpSocket},
    path::Path,
};

use super::Health;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    pub cpus: usize,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    pub ips: Vec<IpAddr>,
    pub kernel: String,
    pub os_image: String,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    /// As Go names it: "amd64", "arm64".
    pub architecture: &'static str,
}

impl Machine {
    /// `disk` is a path on the file system that pods use; `ip` the address others reach the node by.
    pub fn read(disk: &Path, ip: Option<IpAddr>) -> Self {
        Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: meminfo("MemTotal"),
            disk_bytes: disk_space(disk).map_or(0, |(total, _)| total),
            ips: ip.or_else(own_ip).into_iter().collect(),
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: os_image(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
            machine_id: line("/etc/machine-id"),
            system_uuid: line("/sys/class/dmi/id/product_uuid"),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            },
        }
    }
}

fn line(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn os_image(os_release: &str) -> String {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// One line of /proc/meminfo in bytes; 0 where it is not there.
pub fn meminfo(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    meminfo_in(&text, name)
}

fn meminfo_in(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// All and available bytes of the file system a path is on.
pub fn disk_space(path: &Path) -> Option<(u64, u64)> {
    let existing = path.ancestors().find(|path| path.exists())?;
    let stat = nix::sys::statvfs::statvfs(existing).ok()?;
    Some((stat.blocks() * stat.fragment_size(), stat.blocks_available() * stat.fragment_size()))
}

/// The address packets to elsewhere leave with; nothing is sent to find it.
fn own_ip() -> Option<IpAddr> {
    let towards = |far: &str| {
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect(far).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_loopback())
    };
    // Addresses of documentation: routed like any far address, owned by nobody.
    towards("198.51.100.1:9").or_else(|| towards("10.255.255.254:9")).or_else(first_interface_ip).or_else(|| {
        // A machine with no network at all still runs pods that talk to themselves.
        Some(IpAddr::from([127, 0, 0, 1]))
    })
}

fn first_interface_ip() -> Option<IpAddr> {
    let mut addresses = nix::ifaddrs::getifaddrs().ok()?;
    addresses.find_map(|interface| {
        let ip = interface.address?.as_sockaddr_in()?.ip();
        (!ip.is_loopback() && !ip.is_link_local()).then_some(IpAddr::V4(ip))
    })
}

const MEMORY_AVAILABLE_MIN: u64 = 100 << 20;
/// Below one twentieth of free space images and logs no longer fit on a small disk ...
const DISK_SHARE_MIN: u64 = 20;
/// ... while on a large one a twentieth is room for thousands of them: below this they fit on none.
const DISK_AVAILABLE_MIN: u64 = 2 << 30;
const PIDS_SHARE_MIN: u64 = 10;

/// Whether so few free bytes keep pods away.
fn is_disk_pressed(total: u64, free: u64) -> bool {
    free < (total / DISK_SHARE_MIN).min(DISK_AVAILABLE_MIN)
}

/// How the machine is now.
pub fn health(runtime_trouble: Option<String>, disk: &Path) -> Health {
    let processes = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let processes = processes.split(['/', ' ']).nth(4).and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
    let processes_max = line("/proc/sys/kernel/pid_max").parse::<u64>().unwrap_or(u64::MAX);
    Health {
        not_ready: runtime_trouble,
        memory_pressure: meminfo("MemAvailable") < MEMORY_AVAILABLE_MIN,
        disk_pressure: disk_space(disk).is_some_and(|(total, free)| is_disk_pressed(total, free)),
        pid_pressure: processes > processes_max - processes_max / PIDS_SHARE_MIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_lines_are_read_in_bytes() {
        let text = "MemTotal:       24684160 kB\nMemAvailable:    1024 kB\n";
        assert_eq!(meminfo_in(text, "MemAvailable"), 1 << 20);
        assert_eq!(meminfo_in(text, "SwapTotal"), 0);
    }

    /// 12 GB left of 252 are less than a twentieth, and room enough: no pod must wait for more.
    #[test]
    fn a_disk_is_pressed_by_what_is_left_of_it() {
        const GIB: u64 = 1 << 30;
        assert!(!is_disk_pressed(252 * GIB, 12 * GIB));
        assert!(is_disk_pressed(252 * GIB, GIB));
        assert!(!is_disk_pressed(10 * GIB, GIB));
        assert!(is_disk_pressed(10 * GIB, GIB / 4));
    }

    #[test]
    fn the_operating_system_is_named_as_its_vendor_does() {
        assert_eq!(
            os_image("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
            "Debian GNU/Linux 12 (bookworm)"
        );
    }
}
