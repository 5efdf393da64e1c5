//! The text of a pod's `/etc/hosts` and `/etc/resolv.conf`. PURE.

use std::net::IpAddr;

use proto::{Kind, k8s::core::v1::Pod};

use super::snapshot::spec;

/// The pod's name for itself: its `hostname`, or its name as far as a host name may go.
pub fn hostname(pod: &Pod) -> String {
    const LEN_MAX: usize = 63;
    let spec = spec(pod);
    let name = if spec.hostname.is_empty() { &pod.meta().name } else { &spec.hostname };
    let cut: String = name.chars().take(LEN_MAX).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// Names the pod finds without asking anybody.
pub fn hosts(pod: &Pod, ips: &[IpAddr], cluster_domain: &str) -> String {
    let spec = spec(pod);
    let mut text = String::from(
        "# Written by forestay for this pod.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let hostname = hostname(pod);
    for ip in ips {
        match spec.subdomain.as_str() {
            "" => text += &format!("{ip}\t{hostname}\n"),
            subdomain => {
                let namespace = &pod.meta().namespace;
                text += &format!("{ip}\t{hostname}.{subdomain}.{namespace}.svc.{cluster_domain}\t{hostname}\n");
            }
        }
    }
    for alias in &spec.host_aliases {
        text += &format!("{}\t{}\n", alias.ip, alias.hostnames.join("\t"));
    }
    text
}

/// The cluster's name service, as pods are told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterDns {
    /// Empty where the cluster has none: pods then ask whom the node asks.
    pub servers: Vec<IpAddr>,
    pub domain: String,
}

/// The pod's resolver settings, made from its policy and the node's own file.
pub fn resolv_conf(pod: &Pod, dns: &ClusterDns, node_conf: &str) -> String {
    let spec = spec(pod);
    let node = Resolver::parse(node_conf);
    let asks_cluster = match spec.dns_policy.as_str() {
        "" | "ClusterFirst" => !spec.host_network,
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let mut resolver = match spec.dns_policy.as_str() {
        "None" => Resolver::default(),
        _ if asks_cluster && !dns.servers.is_empty() => {
            let domain = &dns.domain;
            let mut searches =
                vec![format!("{}.svc.{domain}", pod.meta().namespace), format!("svc.{domain}"), domain.clone()];
            searches.extend(node.searches);
            Resolver {
                servers: dns.servers.iter().map(ToString::to_string).collect(),
                searches,
                options: vec!["ndots:5".into()],
            }
        }
        _ => node,
    };
    if let Some(config) = &spec.dns_config {
        resolver.servers.extend(config.nameservers.iter().cloned());
        resolver.searches.extend(config.searches.iter().cloned());
        for option in &config.options {
            let name = option.name.as_str();
            resolver.options.retain(|known| known.split(':').next() != Some(name));
            resolver.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name.to_owned(),
            });
        }
    }
    resolver.text()
}

#[derive(Default)]
struct Resolver {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

impl Resolver {
    fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => resolver.servers.extend(words.next()),
                Some("search") => resolver.searches = words.collect(),
                Some("options") => resolver.options.extend(words),
                _ => {}
            }
        }
        resolver
    }

    fn text(&self) -> String {
        let mut seen = std::collections::BTreeSet::new();
        let servers = self.servers.iter().filter(|server| seen.insert(*server));
        let mut text: String = servers.map(|server| format!("nameserver {server}\n")).collect();
        if !self.searches.is_empty() {
            text += &format!("search {}\n", self.searches.join(" "));
        }
        if !self.options.is_empty() {
            text += &format!("options {}\n", self.options.join(" "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use proto::k8s::core::v1::{PodDnsConfig, PodDnsConfigOption, PodSpec};

    use super::*;

    const NODE: &str = "nameserver 192.0.2.1\nsearch example.org\n";

    fn pod(policy: &str) -> Pod {
        let mut pod =
            Pod { spec: Some(PodSpec { dns_policy: policy.into(), ..Default::default() }), ..Default::default() };
        pod.meta_mut().namespace = "shop".into();
        pod.meta_mut().name = "web-1".into();
        pod
    }

    fn dns() -> ClusterDns {
        ClusterDns { servers: vec![[10, 96, 0, 10].into()], domain: "cluster.local".into() }
    }

    #[test]
    fn cluster_first_asks_the_cluster_and_searches_the_namespace() {
        let text = resolv_conf(&pod("ClusterFirst"), &dns(), NODE);
        assert_eq!(
            text,
            "nameserver 10.96.0.10\nsearch shop.svc.cluster.local svc.cluster.local cluster.local example.org\n\
             options ndots:5\n"
        );
    }

    #[test]
    fn without_a_cluster_resolver_the_nodes_is_asked() {
        assert_eq!(resolv_conf(&pod("ClusterFirst"), &ClusterDns::default(), NODE), NODE);
        assert_eq!(resolv_conf(&pod("Default"), &dns(), NODE), NODE);
    }

    #[test]
    fn a_pods_own_settings_come_on_top() {
        let mut pod = pod("None");
        pod.spec.as_mut().unwrap().dns_config = Some(PodDnsConfig {
            nameservers: vec!["1.1.1.1".into()],
            searches: vec!["a.b".into()],
            options: vec![PodDnsConfigOption { name: "ndots".into(), value: Some("2".into()) }],
        });
        assert_eq!(resolv_conf(&pod, &dns(), NODE), "nameserver 1.1.1.1\nsearch a.b\noptions ndots:2\n");
    }

    #[test]
    fn hosts_name_the_pod_by_its_addresses() {
        assert!(hosts(&pod(""), &[[10, 244, 0, 3].into()], "cluster.local").ends_with("10.244.0.3\tweb-1\n"));
    }
}
