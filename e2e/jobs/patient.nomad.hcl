# A task that tells what happens to it and ends when it is told: with the exit code that is written into local/end.

variable "id" {
  type = string
}

job "patient" {
  id   = var.id
  type = "batch"

  group "patient" {
    restart {
      attempts = 0
      mode     = "fail"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "main" {
      driver       = "promptflow"
      kill_timeout = "1s"

      config {
        environment = "busybox"
        command     = "/bin/sh"
        args        = ["/local/main.sh"]
      }

      template {
        destination = "local/main.sh"

        data = <<-SCRIPT
          trap 'echo got HUP' HUP
          trap 'echo got USR1 >&2' USR1
          echo ready
          said=0
          while [ ! -e /local/end ]; do
            if [ -e /local/say ] && [ "$(cat /local/say)" != "$said" ]; then
              said=$(cat /local/say)
              echo "says $said"
            fi
            sleep 0.2
          done
          exit "$(cat /local/end)"
        SCRIPT
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
