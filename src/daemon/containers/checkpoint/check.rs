//! Whether a running container can be frozen, said before anything is tried.

use super::check_runtime;
use crate::daemon::containers::container::Container;
use crate::daemon::containers::lifecycle;
use crate::daemon::containers::state::Action;
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::http::api::checkpoint::{CheckpointCheck, CheckpointContainer, CheckpointObstacle};
use crate::runtime::Sandbox;
use crate::runtime::criu::check::Obstacle;

/// Looks at a container's processes for what stands in the way of a checkpoint. They go on meanwhile.
///
/// # Errors
/// Conflict when it does not run.
pub fn check(engine: &Engine, container: &Container) -> Result<CheckpointCheck> {
    let sandbox = lifecycle::sandbox(container, Action::Top)?;
    look(engine, container, &sandbox)
        .map_err(|error| error.during(format!("Cannot check container {}", container.name())))
}

/// [`check`], with what was found for an error.
///
/// # Errors
/// Conflict with every obstacle.
pub fn refuse(engine: &Engine, container: &Container, sandbox: &Sandbox) -> Result<()> {
    let found = look(engine, container, sandbox)?;
    match found.can_freeze {
        true => Ok(()),
        false => {
            let all: Vec<String> = found.obstacles.iter().map(sentence).collect();
            Err(Error::conflict(all.join("; ")))
        }
    }
}

/// Refuses what CRIU would freeze and could not thaw. What CRIU refuses itself, it shall; and what cannot be looked at
/// it will see.
///
/// # Errors
/// Conflict with every such obstacle.
pub fn refuse_traps(sandbox: &Sandbox) -> Result<()> {
    let Ok(found) = sandbox.examine() else { return Ok(()) };
    let traps = found.obstacles.into_iter().filter(|obstacle| obstacle.is_trap).map(shown);
    let all: Vec<String> = traps.map(|obstacle| sentence(&obstacle)).collect();
    match all.is_empty() {
        true => Ok(()),
        false => Err(Error::conflict(format!(
            "it could be frozen and not thawed: {} (--leave-running does it all the same)",
            all.join("; ")
        ))),
    }
}

/// `process 7 (redis), fd 3: anon_inode:[io_uring]: why; what to do`
fn sentence(obstacle: &CheckpointObstacle) -> String {
    let CheckpointObstacle { pid, command, object, reason, remedy, .. } = obstacle;
    let whose = pid.map_or_else(String::new, |pid| format!("process {pid} ({command}), "));
    format!("{whose}{object}: {reason} ({remedy})")
}

fn look(engine: &Engine, container: &Container, sandbox: &Sandbox) -> Result<CheckpointCheck> {
    let record = container.record();
    let mut found = sandbox.examine()?;
    if container.lock().check(Action::Checkpoint).is_err() {
        found.obstacles.insert(0, Obstacle::of_container("it is paused", "unpause it first"));
    }
    // Whoever shares no runtime with us may have other mounts and processes than we think.
    if let Err(error) = check_runtime(engine, &record) {
        found.obstacles =
            vec![Obstacle::of_container(error.to_string(), "create it with the built-in runtime")];
    }
    let of_criu = |reason: &str| Obstacle {
        kind: "criu",
        object: "criu".to_owned(),
        reason: reason.to_owned(),
        remedy: crate::runtime::criu::HOW_TO_GET.to_owned(),
        ..Obstacle::default()
    };
    match engine.criu() {
        Err(reason) => found.obstacles.push(of_criu(reason)),
        // What it cannot do has to do with sockets.
        Ok(info) if found.has_inet => found.obstacles.extend(info.faults.iter().map(|fault| of_criu(fault))),
        Ok(_) => {}
    }
    if record.host_config.auto_remove {
        found.notes.push(
            "it was started with --rm: a checkpoint needs --leave-running or --checkpoint-dir to outlive it"
                .to_owned(),
        );
    }
    Ok(CheckpointCheck {
        container: CheckpointContainer { id: container.id.clone(), name: container.name() },
        can_freeze: found.obstacles.is_empty(),
        processes: found.processes as u64,
        obstacles: found.obstacles.into_iter().map(shown).collect(),
        notes: found.notes,
    })
}

fn shown(obstacle: Obstacle) -> CheckpointObstacle {
    let Obstacle { kind, pid, command, object, reason, remedy, .. } = obstacle;
    CheckpointObstacle { kind: kind.to_owned(), pid, command, object, reason, remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_obstacle_is_one_sentence() {
        let mut obstacle = CheckpointObstacle {
            pid: Some(7),
            command: "redis".to_owned(),
            object: "fd 3: anon_inode:[io_uring]".to_owned(),
            reason: "why".to_owned(),
            remedy: "what to do".to_owned(),
            ..CheckpointObstacle::default()
        };
        assert_eq!(sentence(&obstacle), "process 7 (redis), fd 3: anon_inode:[io_uring]: why (what to do)");
        obstacle.pid = None;
        assert_eq!(sentence(&obstacle), "fd 3: anon_inode:[io_uring]: why (what to do)");
    }
}
