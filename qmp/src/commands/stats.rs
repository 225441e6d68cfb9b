//! Statistics of the accelerator.

use crate::monitors::MonitorCx;
use crate::types::{Describe, FromQapi, Members, ObjectIn, Path, QapiObject, Schema, ToQapi};
use crate::{qapi_enum, qapi_object, qapi_struct};
use rqemu_machine::accel::stats::{Stat, StatKind, StatUnit};
use rqemu_machine::QResult;
use serde_json::{json, Map, Value};

qapi_enum! {
    /// Where statistics come from.
    pub enum StatsProvider {
        Kvm = "kvm",
    }
    /// What they are about.
    pub enum StatsTarget {
        Vm = "vm",
        Vcpu = "vcpu",
    }
    /// What a value says.
    pub enum StatsType {
        Cumulative = "cumulative",
        Instant = "instant",
        Peak = "peak",
        LinearHistogram = "linear-histogram",
        Log2Histogram = "log2-histogram",
    }
    /// What is counted.
    pub enum StatsUnit {
        Bytes = "bytes",
        Seconds = "seconds",
        Cycles = "cycles",
        Boolean = "boolean",
    }
}

qapi_struct! {
    /// Which statistics of a provider are wanted.
    pub struct StatsRequest {
        /// Provider.
        provider: StatsProvider,
        /// Names; all if left out.
        names: Option<Vec<String>>,
    }
    /// CPUs that are wanted.
    pub struct StatsVcpuFilter {
        /// Their paths.
        vcpus: Option<Vec<String>>,
    }
    /// A statistic.
    pub struct Stats {
        /// Name.
        name: String,
        /// Value.
        value: StatsValue,
    }
    /// Element of `query-stats`.
    pub struct StatsResult {
        /// Provider.
        provider: StatsProvider,
        /// What it is about.
        qom_path: Option<String>,
        /// Statistics.
        stats: Vec<Stats>,
    }
    /// Description of a statistic.
    pub struct StatsSchemaValue {
        /// Name.
        name: String,
        /// What the values say.
        type_ as "type": StatsType,
        /// Unit.
        unit: Option<StatsUnit>,
        /// Base of the scale.
        base: Option<i8>,
        /// Power of the base.
        exponent: i16,
        /// Size of the buckets.
        bucket_size: Option<u32>,
    }
    /// Element of `query-stats-schemas`.
    pub struct StatsSchema {
        /// Provider.
        provider: StatsProvider,
        /// What it is about.
        target: StatsTarget,
        /// Statistics.
        stats: Vec<StatsSchemaValue>,
    }
    /// Arguments of `query-stats-schemas`.
    pub struct QueryStatsSchemas {
        /// Only those of this provider.
        provider: Option<StatsProvider>,
    }
}

/// A value: a number, a truth, or the numbers of a histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct StatsValue(Value);

impl ToQapi for StatsValue {
    fn to_qapi(self) -> Option<Value> {
        Some(self.0)
    }
}

impl FromQapi for StatsValue {
    fn from_qapi(value: Value, _: &Path<'_>) -> QResult<Self> {
        Ok(Self(value))
    }
}

impl Describe for StatsValue {
    fn describe(schema: &mut Schema) -> String {
        schema
            .alternate("stats value", |s| vec![u64::describe(s), bool::describe(s), <Vec<u64>>::describe(s)])
    }
}

/// Arguments of `query-stats`.
#[derive(Clone, Debug, PartialEq)]
pub struct StatsFilter {
    /// What they are about.
    pub target: StatsTarget,
    /// Providers; all if left out.
    pub providers: Option<Vec<StatsRequest>>,
    /// CPUs; all if left out.
    pub vcpus: Option<Vec<String>>,
}

impl QapiObject for StatsFilter {
    fn read(from: &mut ObjectIn<'_>) -> QResult<Self> {
        let target = from.take("target")?;
        let providers = from.take("providers")?;
        let vcpus = if target == StatsTarget::Vcpu { from.take("vcpus")? } else { None };
        Ok(Self { target, providers, vcpus })
    }

    fn write(self, to: &mut Map<String, Value>) {
        let mut put = |name: &str, value: Option<Value>| value.map(|v| to.insert(name.into(), v));
        put("target", self.target.to_qapi());
        put("providers", self.providers.to_qapi());
        put("vcpus", self.vcpus.to_qapi());
    }

    fn members(schema: &mut Schema) -> Members {
        let mut m = Members::default();
        m.add::<StatsTarget>(schema, "target");
        m.add::<Option<Vec<StatsRequest>>>(schema, "providers");
        let vcpus = StatsVcpuFilter::describe(schema);
        m.branch("target", "vcpu", vcpus);
        m.branch("target", "vm", Schema::EMPTY.into());
        m
    }
}

qapi_object!(StatsFilter);

/// The statistics of the VM, or of a CPU.
pub(crate) fn read(cx: &mut MonitorCx<'_, '_>, cpu: Option<usize>) -> Vec<Stat> {
    if let Some(stats) = cx.m.accel.stats(cpu) {
        return stats;
    }
    // The first time, a CPU has to stand still for a moment.
    cx.m.pause_vcpus();
    cx.m.accel.open_stats(cpu);
    cx.m.resume_vcpus();
    cx.m.accel.stats(cpu).unwrap_or_default()
}

fn value(s: &Stat) -> StatsValue {
    StatsValue(match (s.values.as_slice(), s.unit) {
        ([v], StatUnit::Boolean) => (*v != 0).into(),
        ([v], _) => (*v).into(),
        (list, _) => json!(list),
    })
}

pub(crate) fn query_stats(cx: &mut MonitorCx<'_, '_>, args: StatsFilter) -> QResult<Vec<StatsResult>> {
    // Without providers all are meant; an empty list of names means none.
    let mut names: Option<Vec<String>> = None;
    if let Some(list) = args.providers {
        let Some(kvm) = list.into_iter().next() else { return Ok(Vec::new()) };
        names = kvm.names;
    }
    let wanted = |s: &Stat| names.as_ref().is_none_or(|n| n.contains(&s.name));
    let mut out = Vec::new();
    let mut add = |stats: Vec<Stat>, qom_path: Option<String>| {
        let stats: Vec<Stats> = stats
            .iter()
            .filter(|s| wanted(s))
            .map(|s| Stats { name: s.name.clone(), value: value(s) })
            .collect();
        if !stats.is_empty() {
            out.push(StatsResult { provider: StatsProvider::Kvm, qom_path, stats });
        }
    };
    if args.target == StatsTarget::Vm {
        add(read(cx, None), None);
        return Ok(out);
    }
    for i in 0..cx.m.run.vcpus.tids().len() {
        let path = super::cpu::path(cx, i);
        if args.vcpus.as_ref().is_none_or(|v| v.contains(&path)) {
            add(read(cx, Some(i)), Some(path));
        }
    }
    Ok(out)
}

fn describe(s: &Stat) -> StatsSchemaValue {
    StatsSchemaValue {
        name: s.name.clone(),
        type_: match s.kind {
            StatKind::Cumulative => StatsType::Cumulative,
            StatKind::Instant => StatsType::Instant,
            StatKind::Peak => StatsType::Peak,
            StatKind::LinearHistogram => StatsType::LinearHistogram,
            StatKind::Log2Histogram => StatsType::Log2Histogram,
        },
        unit: match s.unit {
            StatUnit::None => None,
            StatUnit::Bytes => Some(StatsUnit::Bytes),
            StatUnit::Seconds => Some(StatsUnit::Seconds),
            StatUnit::Cycles => Some(StatsUnit::Cycles),
            StatUnit::Boolean => Some(StatsUnit::Boolean),
        },
        base: (s.exponent != 0).then_some(s.base),
        exponent: s.exponent,
        bucket_size: (s.kind == StatKind::LinearHistogram).then_some(s.bucket_size),
    }
}

pub(super) fn query_stats_schemas(
    cx: &mut MonitorCx<'_, '_>,
    _: QueryStatsSchemas,
) -> QResult<Vec<StatsSchema>> {
    let mut out = Vec::new();
    let first_cpu = (!cx.m.run.vcpus.tids().is_empty()).then_some(0);
    let targets = [(StatsTarget::Vcpu, first_cpu), (StatsTarget::Vm, None)];
    for (target, cpu) in targets {
        if target == StatsTarget::Vcpu && cpu.is_none() {
            continue;
        }
        let stats: Vec<StatsSchemaValue> = read(cx, cpu).iter().map(describe).collect();
        if !stats.is_empty() {
            out.push(StatsSchema { provider: StatsProvider::Kvm, target, stats });
        }
    }
    Ok(out)
}
