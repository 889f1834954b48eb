# Two tasks to be drained: one ends when it is asked to, the other must be killed when its time is over.

job "drain" {
  type = "service"

  update {
    min_healthy_time  = "0s"
    healthy_deadline  = "45s"
    progress_deadline = "1m"
    health_check      = "task_states"
  }

  migrate {
    min_healthy_time = "0s"
    health_check     = "task_states"
  }

  group "drain" {
    task "polite" {
      driver       = "promptflow"
      kill_timeout = "20s"

      config {
        environment = "busybox"
        command     = "/bin/sh"
        args        = ["-c", "trap 'echo bye; exit 0' TERM; echo ready; while true; do sleep 0.2; done"]
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }

    task "stubborn" {
      driver       = "promptflow"
      kill_timeout = "2s"

      config {
        environment = "busybox"
        command     = "/bin/sh"
        args        = ["-c", "trap '' TERM; echo ready; while true; do sleep 0.2; done"]
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
