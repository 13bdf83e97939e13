//! `dewar update`: change the limits and the restart policy of containers.

use crate::cli::command::{Action, Args, Command, Flag, Matches};
use crate::cli::context::{each, print};
use crate::cli::error::Error;
use crate::http::api::container::{CONTAINER_UPDATE, ContainerUpdate, Resources, RestartPolicy};

use super::run_flags::{
    BLKIO_WEIGHT, CHECKPOINT_EVERY, CHECKPOINT_KEEP, CPU_PERIOD, CPU_QUOTA, CPU_RT_PERIOD, CPU_RT_RUNTIME,
    CPU_SHARES, CPUS, CPUSET_CPUS, CPUSET_MEMS, KERNEL_MEMORY, MEMORY, MEMORY_RESERVATION, MEMORY_SWAP,
    PIDS_LIMIT, STOP_MODE, checkpoint_policy,
};
use super::values;

static RESTART: Flag = Flag::value(
    "restart",
    "POLICY",
    "When to start it again: no, always, unless-stopped, on-failure[:N], checkpoint[:N]",
);

pub static UPDATE: Command = Command {
    names: &["update", "container update"],
    summary: "Change the limits and restart policy of containers",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "",
    flags: FLAGS,
    args: Args::at_least(1),
    example: "dewar update --memory 512m web",
    usage_code: 1,
    plan: |matches| {
        let body = request(matches)?;
        let names = matches.args.clone();
        Action::call(move |context| {
            let warnings = std::cell::RefCell::new(Vec::new());
            let result = each(&names, |name| {
                let updated = context.call(&CONTAINER_UPDATE, &[name], &(), &body)?;
                warnings.borrow_mut().extend(updated.warnings);
                print(&format!("{name}\n"))
            });
            // Compat: what the daemon warns of comes last, on standard output.
            let warnings = warnings.into_inner();
            if !warnings.is_empty() {
                print(&format!("{}\n", warnings.join("\n")))?;
            }
            result
        })
    },
};

static FLAGS: &[&Flag] = &[
    &BLKIO_WEIGHT,
    &CHECKPOINT_EVERY,
    &CHECKPOINT_KEEP,
    &CPU_PERIOD,
    &CPU_QUOTA,
    &CPU_RT_PERIOD,
    &CPU_RT_RUNTIME,
    &CPU_SHARES,
    &CPUS,
    &CPUSET_CPUS,
    &CPUSET_MEMS,
    &KERNEL_MEMORY,
    &MEMORY,
    &MEMORY_RESERVATION,
    &MEMORY_SWAP,
    &PIDS_LIMIT,
    &RESTART,
    &STOP_MODE,
];

fn request(matches: &Matches) -> Result<ContainerUpdate, Error> {
    let integer = |flag: &'static Flag| matches.integer(flag).map(Option::unwrap_or_default);
    let bytes = |flag: &'static Flag| matches.read(flag, values::bytes).map(Option::unwrap_or_default);
    let weight = |text: &str| {
        text.trim().parse::<u16>().map_err(|_| format!("strconv.ParseUint: parsing {text:?}: invalid syntax"))
    };
    let resources = Resources {
        blkio_weight: matches.read(&BLKIO_WEIGHT, weight)?.unwrap_or_default(),
        cpu_period: integer(&CPU_PERIOD)?,
        cpu_quota: integer(&CPU_QUOTA)?,
        cpu_realtime_period: integer(&CPU_RT_PERIOD)?,
        cpu_realtime_runtime: integer(&CPU_RT_RUNTIME)?,
        cpu_shares: integer(&CPU_SHARES)?,
        nano_cpus: matches.read(&CPUS, values::nano_cpus)?.unwrap_or_default(),
        cpuset_cpus: matches.text(&CPUSET_CPUS),
        cpuset_mems: matches.text(&CPUSET_MEMS),
        memory: bytes(&MEMORY)?,
        memory_reservation: bytes(&MEMORY_RESERVATION)?,
        memory_swap: matches.read(&MEMORY_SWAP, values::bytes_or_unlimited)?.unwrap_or_default(),
        pids_limit: matches.integer(&PIDS_LIMIT)?,
        ..Resources::default()
    };
    if FLAGS.iter().all(|flag| !matches.given(flag)) {
        return Err(Error::Local("you must provide one or more flags when using this command".to_owned()));
    }
    Ok(ContainerUpdate {
        resources,
        restart_policy: restart(&matches.text(&RESTART))?,
        checkpoint_policy: checkpoint_policy(matches)?,
    })
}

/// What a policy may be called is the daemon's to say; the count is a number.
fn restart(text: &str) -> Result<RestartPolicy, Error> {
    let Some((name, count)) = text.split_once(':') else {
        return Ok(RestartPolicy { name: text.to_owned(), ..RestartPolicy::default() });
    };
    let invalid = |cause: &str| Error::Local(format!("invalid restart policy format: {cause}"));
    if name.is_empty() {
        return Err(invalid("no policy provided before colon"));
    }
    let count = count.parse().map_err(|_| invalid("maximum retry count must be an integer"))?;
    Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count: count })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::matches_of;

    #[test]
    fn flags_become_the_request() {
        let made = request(&matches_of(
            "update -m 64m --memory-swap -1 --cpus 0.5 -c 512 --pids-limit 10 --restart on-failure:3 \
             --stop-mode checkpoint --checkpoint-every 10m --checkpoint-keep 5 web",
        ))
        .unwrap();
        let checkpoints = &made.checkpoint_policy;
        assert_eq!(checkpoints.stop_mode, "checkpoint");
        assert_eq!((checkpoints.every, checkpoints.keep), (Some(600_000_000_000), Some(5)));
        let resources = made.resources;
        assert_eq!(
            (resources.memory, resources.memory_swap, resources.nano_cpus),
            (64 << 20, -1, 500_000_000)
        );
        assert_eq!((resources.cpu_shares, resources.pids_limit), (512, Some(10)));
        assert_eq!(
            (made.restart_policy.name.as_str(), made.restart_policy.maximum_retry_count),
            ("on-failure", 3)
        );
    }

    #[test]
    fn something_must_change() {
        let error = request(&matches_of("update web")).unwrap_err().to_string();
        assert_eq!(error, "you must provide one or more flags when using this command");
        assert!(request(&matches_of("update --restart on-failure:x web")).is_err());
        assert!(request(&matches_of("update --restart :3 web")).is_err());
    }
}
