# A task that keeps a processor busy and has some memory.

job "busy" {
  type = "service"

  update {
    min_healthy_time  = "0s"
    healthy_deadline  = "45s"
    progress_deadline = "1m"
    health_check      = "task_states"
  }

  group "busy" {
    task "main" {
      driver       = "promptflow"
      kill_timeout = "1s"

      config {
        environment = "busybox"
        command     = "/bin/sh"
        args        = ["-c", "while true; do :; done"]
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
