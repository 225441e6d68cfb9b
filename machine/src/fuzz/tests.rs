use super::*;

/// Steps for each class: all classes together take a few seconds in an unoptimised build.
const STEPS: u64 = 400;

/// Classes that exist only for KVM, or that need what this build has not.
const CANNOT: &[&str] = &["kvm-apic", "kvm-i8259", "kvm-ioapic", "kvm-pit", "kvmclock"];

#[test]
fn nonsense_in_every_register() {
    let progress = Progress::default();
    let (mut driven, mut failed) = (0, Vec::new());
    for class in crate::qom::ALL_CLASSES.iter().map(|c| c.name).filter(|c| !CANNOT.contains(c)) {
        match run(class, 1, STEPS, &progress) {
            Ok(r) => assert_eq!(r.steps, STEPS),
            Err(e) => failed.push(format!("{class}: {e}")),
        }
        driven += 1;
    }
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(driven > 40);
}

#[test]
fn same_seed_same_guest() {
    let mut a = Rng::new(7);
    let mut b = Rng::new(7);
    let list = |r: &mut Rng| (0..8).map(|_| r.value(4096)).collect::<Vec<_>>();
    assert_eq!(list(&mut a), list(&mut b));
    assert_ne!(list(&mut a), list(&mut Rng::new(8)));
}
