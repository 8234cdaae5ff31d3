//! Tasks: what takes longer than a call, and how it went.

use std::collections::VecDeque;
use std::time::SystemTime;

use crate::sim::clock;
use crate::sim::soap::fault::Fault;
use crate::sim::value::Data;
use crate::sim::value::Moref;
use crate::sim::value::Value;

/// The most tasks that are remembered.
const MOST: usize = 1000;

/// The tasks, oldest first.
#[derive(Debug, Default)]
pub struct Tasks(VecDeque<Task>);

/// A task.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its identifier.
    pub id: String,
    /// The method that began it.
    pub method: &'static str,
    /// What it changes.
    pub entity: Moref,
    /// The name of that.
    pub entity_name: String,
    /// Who began it.
    pub user: String,
    /// When it began.
    pub begun: SystemTime,
    /// When it ended, and how.
    pub ended: Option<(SystemTime, Result<Option<Value>, Fault>)>,
}

impl Tasks {
    /// Adds one. The oldest that has ended is forgotten when there are too many.
    pub fn add(&mut self, task: Task) {
        if self.0.len() >= MOST
            && let Some(at) = self.0.iter().position(|task| task.ended.is_some())
        {
            self.0.remove(at);
        }
        self.0.push_back(task);
    }

    /// One of them.
    pub fn get(&self, id: &str) -> Option<&Task> {
        self.0.iter().find(|task| task.id == id)
    }

    /// Notes the end of one.
    pub fn end(&mut self, id: &str, result: Result<Option<Value>, Fault>) {
        if let Some(task) = self.0.iter_mut().find(|task| task.id == id) {
            task.ended = Some((SystemTime::now(), result));
        }
    }

    /// Those of an object, newest first.
    pub fn of(&self, entity: &Moref) -> Vec<Moref> {
        self.0.iter().rev().filter(|task| task.entity == *entity).take(10).map(Task::moref).collect()
    }
}

impl Task {
    /// Its reference.
    pub fn moref(&self) -> Moref {
        Moref::new("Task", self.id.clone())
    }

    /// `TaskInfo`.
    pub fn info(&self) -> Data {
        let state = match &self.ended {
            None => "running",
            Some((_, Ok(_))) => "success",
            Some((_, Err(_))) => "error",
        };
        let plain = self.method.trim_end_matches("_Task");
        let mut letters = plain.chars();
        let lower = letters
            .next()
            .map_or_else(String::new, |c| c.to_ascii_lowercase().to_string() + letters.as_str());
        let error = match &self.ended {
            Some((_, Err(fault))) => Some(fault.localized()),
            _ => None,
        };
        let result = match &self.ended {
            Some((_, Ok(result))) => result.clone(),
            _ => None,
        };
        let time = |time: SystemTime| Value::Time(clock::iso(time));
        Data::new("TaskInfo")
            .with("key", self.id.clone())
            .with("task", self.moref())
            .with("name", self.method)
            .with("descriptionId", format!("{}.{lower}", self.entity.kind))
            .with("entity", self.entity.clone())
            .with("entityName", self.entity_name.clone())
            .with("state", Value::Enum("TaskInfoState", state.to_owned()))
            .with("cancelled", false)
            .with("cancelable", false)
            .maybe("error", error)
            .maybe("result", result)
            .with("reason", Data::new("TaskReasonUser").with("userName", self.user.clone()))
            .with("queueTime", time(self.begun))
            .with("startTime", time(self.begun))
            .maybe("completeTime", self.ended.as_ref().map(|(end, _)| time(*end)))
            .with("eventChainId", 1i32)
    }
}
