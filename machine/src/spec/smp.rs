//! CPU topology: what the user asked for, and QEMU's rules for filling the gaps.

use crate::error::QResult;
use crate::qerr;

/// `-smp` / `-machine smp.*`: only what was given, cut to 32 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SmpSpec {
    /// CPUs present at start.
    pub cpus: Option<u64>,
    /// Sockets on the board.
    pub sockets: Option<u64>,
    /// Dies in a socket.
    pub dies: Option<u64>,
    /// Clusters in a die.
    pub clusters: Option<u64>,
    /// Cores in a cluster (or die).
    pub cores: Option<u64>,
    /// Threads in a core.
    pub threads: Option<u64>,
    /// CPUs present or hot-pluggable.
    pub maxcpus: Option<u64>,
}

/// What a machine class can do.
#[derive(Clone, Copy, Debug)]
pub struct SmpTraits<'a> {
    /// Full machine name for messages (`pc-i440fx-7.2`).
    pub machine: &'a str,
    /// Fewest CPUs (1 for all x86 machines).
    pub min_cpus: u32,
    /// Most CPUs.
    pub max_cpus: u32,
    /// pc and q35 have dies.
    pub dies: bool,
    /// No x86 machine of 7.2 has clusters.
    pub clusters: bool,
    /// Machine versions before 6.2 put unspecified CPUs into sockets, later ones into cores.
    pub prefer_sockets: bool,
}

/// A complete topology: `sockets * dies * clusters * cores * threads == maxcpus >= cpus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// CPUs present at start.
    pub cpus: u32,
    /// Sockets.
    pub sockets: u32,
    /// Dies in a socket.
    pub dies: u32,
    /// Clusters in a die.
    pub clusters: u32,
    /// Cores in a cluster.
    pub cores: u32,
    /// Threads in a core.
    pub threads: u32,
    /// CPUs present or hot-pluggable.
    pub maxcpus: u32,
}

/// The counts under way; 0 = not decided.
struct Counts {
    cpus: u64,
    sockets: u64,
    dies: u64,
    clusters: u64,
    cores: u64,
    threads: u64,
    maxcpus: u64,
}

impl SmpSpec {
    /// True when a parameter was given as 0, which QEMU takes as "not given" with a deprecation warning.
    pub fn has_zero(&self) -> bool {
        [self.cpus, self.sockets, self.dies, self.clusters, self.cores, self.threads, self.maxcpus]
            .contains(&Some(0))
    }

    /// Fills in what was not given and checks the result against the machine class.
    pub fn resolve(&self, machine: &SmpTraits<'_>) -> QResult<Topology> {
        let some = |v: Option<u64>| v.unwrap_or(0);
        if !machine.dies && some(self.dies) > 1 {
            return Err(qerr!("dies not supported by this machine's CPU topology"));
        }
        if !machine.clusters && some(self.clusters) > 1 {
            return Err(qerr!("clusters not supported by this machine's CPU topology"));
        }
        let mut c = Counts {
            cpus: some(self.cpus),
            sockets: some(self.sockets),
            dies: some(self.dies).max(1),
            clusters: some(self.clusters).max(1),
            cores: some(self.cores),
            threads: some(self.threads),
            maxcpus: some(self.maxcpus),
        };
        c.fill(machine.prefer_sockets);
        c.check(machine)
    }
}

impl Counts {
    /// Decides every count that is still 0.
    fn fill(&mut self, prefer_sockets: bool) {
        if self.cpus == 0 && self.maxcpus == 0 {
            self.sockets = self.sockets.max(1);
            self.cores = self.cores.max(1);
            self.threads = self.threads.max(1);
        } else {
            if self.maxcpus == 0 {
                self.maxcpus = self.cpus;
            }
            self.fill_from_total(prefer_sockets);
        }
        let total = self.product();
        if self.maxcpus == 0 {
            self.maxcpus = u64::try_from(total).unwrap_or(u64::MAX);
        }
        if self.cpus == 0 {
            self.cpus = self.maxcpus;
        }
    }

    fn fill_from_total(&mut self, prefer_sockets: bool) {
        let outer = u128::from(self.dies) * u128::from(self.clusters);
        let total = u128::from(self.maxcpus);
        let share = |others: u128| u64::try_from(total.checked_div(others).unwrap_or(0)).unwrap_or(0);
        let known = |a: u64, b: u64| outer.saturating_mul(u128::from(a)).saturating_mul(u128::from(b));
        if prefer_sockets && self.sockets == 0 {
            self.cores = self.cores.max(1);
            self.threads = self.threads.max(1);
            self.sockets = share(known(self.cores, self.threads));
        } else if self.cores == 0 {
            self.sockets = self.sockets.max(1);
            self.threads = self.threads.max(1);
            self.cores = share(known(self.sockets, self.threads));
        } else if self.sockets == 0 {
            self.threads = self.threads.max(1);
            self.sockets = share(known(self.cores, self.threads));
        }
        if self.threads == 0 {
            self.threads = share(known(self.sockets, self.cores));
        }
    }

    fn product(&self) -> u128 {
        [self.sockets, self.dies, self.clusters, self.cores, self.threads]
            .iter()
            .fold(1, |acc: u128, v| acc.saturating_mul(u128::from(*v)))
    }

    fn hierarchy(&self, machine: &SmpTraits<'_>) -> String {
        let mut text = format!("sockets ({})", self.sockets);
        if machine.dies {
            text += &format!(" * dies ({})", self.dies);
        }
        if machine.clusters {
            text += &format!(" * clusters ({})", self.clusters);
        }
        text + &format!(" * cores ({}) * threads ({})", self.cores, self.threads)
    }

    fn check(&self, machine: &SmpTraits<'_>) -> QResult<Topology> {
        if self.product() != u128::from(self.maxcpus) {
            return Err(qerr!(
                "Invalid CPU topology: product of the hierarchy must match maxcpus: {} != maxcpus ({})",
                self.hierarchy(machine),
                self.maxcpus
            ));
        }
        if self.maxcpus < self.cpus {
            return Err(qerr!(
                "Invalid CPU topology: maxcpus must be equal to or greater than smp: {} == maxcpus ({}) < smp_cpus ({})",
                self.hierarchy(machine),
                self.maxcpus,
                self.cpus
            ));
        }
        if self.cpus < u64::from(machine.min_cpus) {
            return Err(qerr!(
                "Invalid SMP CPUs {}. The min CPUs supported by machine '{}' is {}",
                self.cpus as i32,
                machine.machine,
                machine.min_cpus
            ));
        }
        if self.maxcpus > u64::from(machine.max_cpus) {
            return Err(qerr!(
                "Invalid SMP CPUs {}. The max CPUs supported by machine '{}' is {}",
                self.maxcpus as i32,
                machine.machine,
                machine.max_cpus
            ));
        }
        // Every factor divides maxcpus, which fits.
        Ok(Topology {
            cpus: self.cpus as u32,
            sockets: self.sockets as u32,
            dies: self.dies as u32,
            clusters: self.clusters as u32,
            cores: self.cores as u32,
            threads: self.threads as u32,
            maxcpus: self.maxcpus as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PC: SmpTraits<'_> = SmpTraits {
        machine: "pc-i440fx-7.2",
        min_cpus: 1,
        max_cpus: 255,
        dies: true,
        clusters: false,
        prefer_sockets: false,
    };

    fn topo(spec: SmpSpec, traits: &SmpTraits<'_>) -> Result<[u32; 7], String> {
        spec.resolve(traits)
            .map(|t| [t.cpus, t.sockets, t.dies, t.clusters, t.cores, t.threads, t.maxcpus])
            .map_err(|e| e.desc)
    }

    #[test]
    fn gaps_are_filled_as_in_7_2() {
        let d = SmpSpec::default();
        assert_eq!(topo(d, &PC), Ok([1, 1, 1, 1, 1, 1, 1]));
        assert_eq!(topo(SmpSpec { cpus: Some(6), ..d }, &PC), Ok([6, 1, 1, 1, 6, 1, 6]));
        let old = SmpTraits { prefer_sockets: true, ..PC };
        assert_eq!(topo(SmpSpec { cpus: Some(6), ..d }, &old), Ok([6, 6, 1, 1, 1, 1, 6]));
        let s = SmpSpec { cpus: Some(2), maxcpus: Some(8), dies: Some(2), cores: Some(2), ..d };
        assert_eq!(topo(s, &PC), Ok([2, 2, 2, 1, 2, 1, 8]));
        assert_eq!(topo(SmpSpec { cores: Some(4), threads: Some(2), ..d }, &PC), Ok([8, 1, 1, 1, 4, 2, 8]));
        let s = SmpSpec { cpus: Some(8), sockets: Some(1), cores: Some(4), ..d };
        assert_eq!(topo(s, &PC), Ok([8, 1, 1, 1, 4, 2, 8]));
    }

    #[test]
    fn refusals() {
        let d = SmpSpec::default();
        let err = |s: SmpSpec| topo(s, &PC).unwrap_err();
        assert_eq!(
            err(SmpSpec { cpus: Some(4), dies: Some(2), sockets: Some(3), ..d }),
            "Invalid CPU topology: product of the hierarchy must match maxcpus: \
             sockets (3) * dies (2) * cores (0) * threads (1) != maxcpus (4)"
        );
        assert_eq!(
            err(SmpSpec { cpus: Some(4), maxcpus: Some(2), ..d }),
            "Invalid CPU topology: maxcpus must be equal to or greater than smp: \
             sockets (1) * dies (1) * cores (2) * threads (1) == maxcpus (2) < smp_cpus (4)"
        );
        assert_eq!(
            err(SmpSpec { cpus: Some(300), ..d }),
            "Invalid SMP CPUs 300. The max CPUs supported by machine 'pc-i440fx-7.2' is 255"
        );
        assert_eq!(
            err(SmpSpec { clusters: Some(2), ..d }),
            "clusters not supported by this machine's CPU topology"
        );
        // Nothing overflows.
        let huge = Some(u64::MAX);
        assert!(topo(SmpSpec { sockets: huge, dies: huge, cores: huge, threads: huge, ..d }, &PC).is_err());
    }
}
