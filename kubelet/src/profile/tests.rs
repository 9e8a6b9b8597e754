use super::*;
use flate2::read::GzDecoder;
use format::Profile;
use prost::Message;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

/// Never inlined, so that it is in stacks.
#[inline(never)]
fn burns_cpu(until: &AtomicBool) -> u64 {
    let mut sum = 0_u64;
    while !until.load(Ordering::Relaxed) {
        sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
    }
    sum
}

fn read(profile: &[u8]) -> Profile {
    let mut plain = Vec::new();
    GzDecoder::new(profile).read_to_end(&mut plain).unwrap();
    Profile::decode(plain.as_slice()).unwrap()
}

fn names<'a>(profile: &'a Profile, locations: &[u64]) -> Vec<&'a str> {
    let found = locations.iter().filter_map(|id| {
        let location = &profile.location[*id as usize - 1];
        let function = location.line.first()?.function_id;
        let name = profile.function[function as usize - 1].name;
        Some(profile.string_table[name as usize].as_str())
    });
    found.collect()
}

#[test]
#[ignore = "needs root: perf events"]
fn profile_tells_who_burns_cpu_and_who_called_it() {
    let until = AtomicBool::new(false);
    let profile = std::thread::scope(|scope| {
        scope.spawn(|| burns_cpu(&until));
        let profile = cpu(Duration::from_millis(500), &CancellationToken::new());
        until.store(true, Ordering::Relaxed);
        read(&profile.unwrap())
    });
    let burning: Vec<_> = profile
        .sample
        .iter()
        .filter(|s| {
            names(&profile, &s.location_id)
                .iter()
                .any(|n| n.contains("burns_cpu"))
        })
        .collect();
    let nanoseconds: i64 = burning.iter().map(|s| s.value[1]).sum();
    assert!(
        (100_000_000..=600_000_000).contains(&nanoseconds),
        "{nanoseconds}"
    );
    let outside = burning.iter().max_by_key(|s| s.value[0]).unwrap();
    let outside = names(&profile, &outside.location_id);
    // Out to where a thread begins, in the C library.
    assert!(outside.len() > 4, "{outside:?}");
    assert!(outside.iter().any(|n| n.contains("thread")), "{outside:?}");
    assert!(profile.mapping[0].has_functions);
}

#[test]
fn own_program_knows_its_functions() {
    let program = Program::own().unwrap();
    let here = program.name(burns_cpu as *const () as u64).unwrap();
    assert!(here.contains("burns_cpu"), "{here}");
    assert_eq!(program.name(0), None);
    assert!(!program.eh_frame.data.is_empty() && !program.eh_frame_hdr.data.is_empty());
}

#[test]
fn profile_counts_stacks_and_their_time() {
    let program = Program::own().unwrap();
    let here = burns_cpu as *const () as u64;
    let stacks = Stacks::from([(vec![here, here + 1], 3), (vec![here + 1], 1)]);
    let taken = format::Taken {
        began: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
        length: Duration::from_secs(2),
        period: PERIOD,
    };
    let profile = read(&format::written(&stacks, &program, taken));
    let mut values: Vec<_> = profile.sample.iter().map(|s| s.value.clone()).collect();
    values.sort();
    assert_eq!(values, [[1, 10_000_000], [3, 30_000_000]]);
    assert_eq!((profile.location.len(), profile.function.len()), (2, 1));
    assert_eq!(profile.string_table[0], "");
    assert_eq!(
        (profile.time_nanos, profile.duration_nanos),
        (1_000_000_000, 2_000_000_000)
    );
    let unit = profile.sample_type[1].unit as usize;
    assert_eq!(profile.string_table[unit], "nanoseconds");
}
